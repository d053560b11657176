"""A worker that finds the prime factors of numbers, made of the skeleton beside it.

    multinodes start --serve "factors=python3 examples/workers/factors.py" --slots factors=2
    multinodes call factors factor 1234567890
"""

from worker import Failure, Worker

worker = Worker(description={"language": "python"}, version="1.0.0")


@worker.idempotent_action
def factor(request, number):
    if not isinstance(number, int) or number < 1:
        raise Failure("not_positive", f"{number} is not a whole number above 0")
    factors, divisor = [], 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors + [number] if number > 1 else factors


if __name__ == "__main__":
    worker.run()
