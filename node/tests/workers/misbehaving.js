// The JavaScript skeleton with actions that misbehave. MULTINODES_SKELETONS is the folder of the skeletons.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { Failure, worker } = require(path.join(process.env.MULTINODES_SKELETONS, "worker.js"));

const pause = (milliseconds) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);

worker.actions({
  process: () => process.pid,

  complain: (request, text) => console.log(text),

  leave: (request, code) => {
    fs.writeSync(2, "leaving now\n");
    process.exit(code);
  },

  babble: () => {
    worker.write('hello\n[7, 3]\n7\n\n{"id": 999999, "result": 1}\n{"id": "x"}\n{"progress": 1}\n');
    fs.writeSync(1, Buffer.from([0xff, 0xfe, 10]));
    worker.write('{"call": 5}\n');
    return "still here";
  },

  // Results and errors that are not JSON.
  strange: (request, kind) => {
    if (kind === "error") throw new Failure("odd", "half a \ud800 character", { data: Infinity });
    return { number: [NaN], surrogate: "\ud800", key: { "\udc00": 1 }, thing: () => 1 }[kind];
  },

  // A line without end.
  drone: () => {
    for (;;) worker.write("x".repeat(65536));
  },

  // Neither ends nor hears that it should.
  stubborn: () => {
    for (;;) pause(1000);
  },

  // Comes back when so many are here at once.
  meet: async (request, folder, count) => {
    fs.writeFileSync(path.join(folder, String(process.pid)), "");
    while (fs.readdirSync(folder).length < count && !request.signal.aborted) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return process.pid;
  },

  // Asks for more at once than it may, until so many were refused.
  crowd: (request, app, count, refused) =>
    new Promise((resolve) => {
      for (let number = 0; number < count; number++) {
        worker.call(app, "wait").catch((error) => {
          if (error.code === "busy" && --refused === 0) resolve();
        });
      }
    }),
});

worker.idempotentActions({
  // Ends the first worker that it meets.
  frail: (request, file) => {
    try {
      fs.writeFileSync(file, String(process.pid), { flag: "wx" });
    } catch {
      return process.pid;
    }
    process.exit(1);
  },
});

worker.run();
