// A lane: frames on a stream (section 4 of PROTOCOL.md).
import { join, read, write } from './wire.mjs'

export class Lane {
  constructor (stream, onFrame, onEnd) {
    Object.assign(this, { stream, onFrame, onEnd, isOpen: true })
    this.run()
  }

  send (frame) {
    const body = write(frame)
    const length = Buffer.alloc(4)
    length.writeUInt32BE(body.length)
    this.stream.send(join(length, body))
  }

  async run () {
    let waiting = Buffer.alloc(0)
    try {
      for await (const chunk of this.stream) {
        waiting = Buffer.concat([waiting, chunk.subarray()])
        while (waiting.length >= 4 && waiting.length >= 4 + waiting.readUInt32BE()) {
          const end = 4 + waiting.readUInt32BE()
          this.onFrame(this, read(Uint8Array.from(waiting.subarray(4, end))))
          waiting = waiting.subarray(end)
        }
      }
    } catch (error) {
      this.error = error
    }
    this.isOpen = false
    await this.stream.close().catch(() => {})
    this.onEnd(this)
  }
}
