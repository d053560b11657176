#!/usr/bin/env node
// A MultiNodes worker in JavaScript: no packages, Node.js 16 or later. Copy it and replace the example at the end.
//
//     multinodes start --serve "demo=node examples/workers/worker.js"
//     multinodes call demo add 1 2
//
// Whatever is logged goes to the node's log. The protocol is in README.md beside this file.
"use strict";

const fs = require("node:fs");

/** An error for the caller: a code for programs, a message for people, and any data. */
class Failure extends Error {
  constructor(code, message, data) {
    super(message);
    Object.assign(this, { code, data });
  }
}

/** Says that nothing of the request was done. Codes: `no_such_action`, `bad_arguments`, `forbidden`, `busy`. */
class Refusal extends Failure {}

/** Answers one request after the other. */
class Worker {
  #description;
  #version;
  #actions = new Map();
  #idempotent = [];
  #onTell;
  #running = new Map();
  #waiting = new Map();
  #asked = 0;
  #rest = [];

  constructor({ description, version } = {}) {
    this.#description = description;
    this.#version = version;
  }

  /** Adds handlers `(request, ...args) => result`, or a promise of it; their names are the actions. */
  actions(handlers) {
    for (const [name, handler] of Object.entries(handlers)) this.#actions.set(name, handler);
    return this;
  }

  /** As `actions`, and may run twice without harm: if this host is lost meanwhile, another one does it. */
  idempotentActions(handlers) {
    this.#idempotent.push(...Object.keys(handlers));
    return this.actions(handlers);
  }

  /** Takes messages that nobody waits for: `(request, message) => {}`. */
  onTell(handler) {
    this.#onTell = handler;
    return this;
  }

  /** Works until the node closes our stdin. */
  run() {
    // Stdout is ours alone: what is logged goes to the node's log.
    console.log = console.info = console.debug = console.error;
    const actions = [...this.#actions.keys()].sort();
    const idempotent = this.#idempotent.sort();
    this.describe({ description: this.#description, version: this.#version, actions, idempotent });
    process.stdin.on("data", (chunk) => this.#onData(chunk));
    process.stdin.on("end", () => process.exit(0));
  }

  /** Runs an action of an application anywhere in the swarm. Within a request, use `request.call`. */
  call(app, action, args = [], options = {}) {
    return this.ask("call", { app, action, args }, options);
  }

  /** Hands a message to an application anywhere in the swarm. Within a request, use `request.tell`. */
  tell(app, message, options = {}) {
    return this.ask("tell", { app, message }, options);
  }

  /** Changes what the swarm knows of this application: `description`, `version`, `actions`, `idempotent`. */
  describe({ description, version, actions, idempotent }) {
    this.send({ describe: { description, version, actions, idempotent } });
  }

  /** Sends one line. Throws what the node could not read, or would read as something else. */
  send(message) {
    this.write(JSON.stringify(message, checked) + "\n");
  }

  /** Writes to the node, all of it before anything else happens. */
  write(text) {
    for (let bytes = Buffer.from(text); bytes.length > 0; ) {
      try {
        bytes = bytes.subarray(fs.writeSync(1, bytes));
      } catch (error) {
        if (error.code !== "EAGAIN") process.exit(0);
      }
    }
  }

  /** Asks the node for something: resolves to the result, or is rejected with a `Failure`. */
  ask(kind, question, { node, timeout, within } = {}) {
    const id = ++this.#asked;
    const timeout_ms = timeout === undefined ? undefined : Math.round(timeout * 1000);
    this.send({ [kind]: { id, ...question, node, timeout_ms, for: within } });
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  #onData(chunk) {
    let start = 0;
    for (let end; (end = chunk.indexOf(10, start)) >= 0; start = end + 1) {
      const line = Buffer.concat([...this.#rest, chunk.subarray(start, end)]);
      this.#rest = [];
      this.#onMessage(JSON.parse(line.toString()));
    }
    if (start < chunk.length) this.#rest.push(chunk.subarray(start));
  }

  #onMessage(message) {
    const answered = message.call ?? message.tell ?? message.describe;
    if (message.cancel !== undefined) {
      this.#running.get(message.cancel)?.abort();
    } else if (message.id !== undefined) {
      this.#work(message);
    } else if (this.#waiting.has(answered)) {
      const { resolve, reject } = this.#waiting.get(answered);
      this.#waiting.delete(answered);
      const error = message.error;
      if (error) reject(new Failure(error.code, error.message, error.data));
      else resolve(message.result);
    }
  }

  async #work(message) {
    const { id } = message;
    const controller = new AbortController();
    this.#running.set(id, controller);
    const stopped = new Promise((_, reject) => {
      controller.signal.addEventListener("abort", () => reject(new Failure("cancelled", "cancelled")));
    });
    try {
      // A cancelled request is answered at once; its handler sees it by `request.signal`.
      const result = await Promise.race([this.#run(new Request(this, message, controller.signal), message), stopped]);
      this.send({ id, result: result ?? null });
    } catch (error) {
      if (!(error instanceof Failure)) console.error(error);
      const { code, message, data } = error instanceof Failure ? error : { code: "exception", message: String(error) };
      try {
        this.send({ id, error: { code, message, data, refused: error instanceof Refusal || undefined } });
      } catch (failure) {
        this.send({ id, error: { code: "exception", message: `the error is not JSON: ${failure.message}` } });
      }
    } finally {
      this.#running.delete(id);
    }
  }

  async #run(request, { action, args, message }) {
    if (action === undefined) {
      if (!this.#onTell) throw new Refusal("no_such_action", "it takes no tells");
      await this.#onTell(request, message);
      return null;
    }
    const handler = this.#actions.get(action);
    if (!handler) throw new Refusal("no_such_action", action);
    const least = handler.length - 1;
    if (args.length < least) throw new Refusal("bad_arguments", `takes ${least} arguments, ${args.length} given`);
    return handler(request, ...args);
  }
}

/** Finds in what is sent what is not JSON: `JSON.stringify` would write `null`, leave it out, or write half a character. */
function checked(key, value) {
  const isHalf = (text) => /[\ud800-\udfff]/u.test(text);
  if (typeof value === "number" && !Number.isFinite(value)) throw new TypeError(`${value} is not JSON`);
  if (typeof value === "function" || typeof value === "symbol") throw new TypeError(`a ${typeof value} is not JSON`);
  if (isHalf(key) || (typeof value === "string" && isHalf(value))) throw new TypeError("a lone surrogate is not JSON");
  return value;
}

/** What is known of the request that a handler works on. */
class Request {
  #worker;

  constructor(worker, { id, caller, deadline_ms }, signal) {
    this.#worker = worker;
    /** Aborted when the caller has lost interest or its deadline is over: stop the work and clean up. */
    this.signal = signal;
    this.id = id;
    this.caller = caller;
    this.deadline = deadline_ms === undefined ? undefined : performance.now() + deadline_ms;
  }

  /** Milliseconds until nobody waits for the answer any more; `undefined` if nobody waits anyway. */
  remaining() {
    return this.deadline === undefined ? undefined : this.deadline - performance.now();
  }

  /** Tells the caller how far the work is. */
  progress(value) {
    if (!this.signal.aborted) this.#worker.send({ id: this.id, progress: value });
  }

  /** Runs an action of another application, within the time of this request. */
  call(app, action, args = [], options = {}) {
    return this.#worker.ask("call", { app, action, args }, { ...options, within: this.id });
  }

  /** Hands a message to another application, within the time of this request. */
  tell(app, message, options = {}) {
    return this.#worker.ask("tell", { app, message }, { ...options, within: this.id });
  }
}

// --- the example: replace it with your own ---

const worker = new Worker({ description: { language: "javascript" }, version: "1.0.0" });
const told = [];

worker.idempotentActions({
  add: (request, a, b) => a + b,

  divide: (request, a, b) => {
    if (b === 0) throw new Failure("division_by_zero", `${a} cannot be divided by ${b}`, { dividend: a });
    return a / b;
  },
});

worker.actions({
  // Says how far it is, and stops when nobody waits any more.
  count: async (request, to, seconds = 0) => {
    for (let number = 1; number <= to && !request.signal.aborted; number++) {
      request.progress(number);
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
    return to;
  },

  // Calls another application, and tells `journal` of it if somebody hosts one.
  relay: async (request, app, action, ...args) => {
    const result = await request.call(app, action, args);
    await request
      .tell("journal", `${app}.${action} = ${JSON.stringify(result)}`, { timeout: 1 })
      .catch((error) => console.log(`no journal: ${error.message}`));
    return result;
  },

  // Changes what others see of this application.
  describe: (request, description) => worker.describe({ description }),

  recall: () => told,
});

worker.onTell((request, message) => {
  console.log(`told by ${request.caller}:`, message);
  told.push(message);
});

module.exports = { Failure, Refusal, Worker, worker };
if (require.main === module) worker.run();
