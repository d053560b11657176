"""The counterpart of `map` in Dask distributed: two worker processes of one thread, tasks that do nothing.

    dask_map.py SECONDS TASKS

Says `ready`, then `tasks_per_second RATE`: batches of TASKS, each gathered before the next is submitted, for SECONDS
after one batch to warm up. Every task is a new one: nothing comes from a cache. Its best setting for short tasks: they
are given to the workers at once (`worker-saturation`) instead of two at a time, and `gather` is faster than
`as_completed`.
"""

import itertools
import logging
import sys
import time

import dask
from distributed import Client, LocalCluster


def nothing(number):
    return number


def run_batch(client, first, count):
    futures = client.map(nothing, range(first, first + count), pure=False)
    results = client.gather(futures)
    assert results == list(range(first, first + count))


def main():
    seconds, count = float(sys.argv[1]), int(sys.argv[2])
    dask.config.set({"distributed.scheduler.worker-saturation": float("inf")})
    # Quiet: its workers complain of the connections that they lose when it is closed.
    quiet = {"dashboard_address": None, "silence_logs": logging.CRITICAL}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **quiet) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        print("ready", flush=True)
        run_batch(client, 0, count)
        begin = time.perf_counter()
        for batch in itertools.count(1):
            run_batch(client, batch * count, count)
            elapsed = time.perf_counter() - begin
            if elapsed >= seconds:
                print("tasks_per_second", batch * count / elapsed, flush=True)
                break


if __name__ == "__main__":
    main()
