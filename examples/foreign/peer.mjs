// A node of MultiNodes on js-libp2p, written from behaviour/PROTOCOL.md: it joins, levels directories, gossips, hosts
// applications, calls those of others, and is called. libp2p is as it comes, except where a comment says why.
import { gossipsub } from '@libp2p/gossipsub'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { identify, identifyPush } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { preSharedKey } from '@libp2p/pnet'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

import { Lane } from './lane.mjs'
import { bytes, derive, digest, hex, hostToken, join, newer, open, read, seal, sha256, versions, write } from './wire.mjs'

const [CALL, TELL, REPLY, ACCEPTED, ERROR, GOODBYE] = [0, 1, 2, 3, 4, 6]
const SYNC_LIMIT_MS = 5000
const ROUNDS = 32

export class Peer {
  /** `applications`: names, and for each its actions, functions of the list of arguments. */
  static async start ({ swarm, name, listen = [], applications = {}, secret }) {
    const peer = new Peer()
    Object.assign(peer, { swarm, name, applications, records: new Map(), lanes: new Map(), all: new Set(), waiting: new Map() })
    Object.assign(peer, { key: await generateKeyPair('Ed25519'), incarnation: Date.now(), revision: 0, beat: 0, nextId: 1 })
    await peer.#begin(listen, secret)
    return peer
  }

  async #begin (listen, secret) {
    const gossip = ['1.1.0', '1.0.0'].map(version => `/multinodes/${this.swarm}/gossip/${version}`)
    const keys = secret && {
      connectionProtector: preSharedKey({ psk: bytes(`/key/swarm/psk/1.0.0/\n/base16/\n${hex(derive(secret, 'guard', this.swarm))}`) }),
      connectionEncrypters: [noise({ prologueBytes: derive(secret, 'prologue', this.swarm) })]
    }
    this.node = await createLibp2p({
      privateKey: this.key,
      addresses: { listen },
      transports: [tcp()],
      connectionEncrypters: [noise()],
      streamMuxers: [yamux()],
      services: {
        identify: identify(),
        identifyPush: identifyPush(),
        ping: ping(),
        pubsub: gossipsub({
          globalSignaturePolicy: 'StrictNoSign',
          msgIdFn: message => Uint8Array.from(sha256(message.data).subarray(0, 20)),
          floodPublish: false,
          allowPublishToZeroTopicPeers: true,
          fallbackToFloodsub: false,
          scoreParams: { IPColocationFactorWeight: 0 }
        })
      },
      start: false,
      ...keys
    })
    const { pubsub } = this.node.services
    // @libp2p/gossipsub 17.1 has an option for this, and does not heed it.
    pubsub.protocols = gossip
    await this.node.handle(this.#id('sync'), stream => this.#onSync(stream).catch(error => stream.abort(error)))
    await this.node.handle(this.#id('lane'), (stream, connection) => this.#lane(stream, connection.remotePeer))
    await this.node.start()
    this.topic = `multinodes/${this.swarm}/1`
    pubsub.topicValidators.set(this.topic, (_, message) => this.#onGossip(message))
    pubsub.subscribe(this.topic)
    await this.#renew()
    this.beats = setInterval(() => this.#sendBeat(), 5000)
  }

  #id (protocol) { return `/multinodes/${this.swarm}/${protocol}/1` }

  async join (address) {
    const connection = await this.node.dial(multiaddr(address))
    await this.#offer(connection)
    return connection
  }

  // Records and beats.

  async #renew (more = {}) {
    this.revision++
    const value = {
      name: this.name,
      incarnation: this.incarnation,
      revision: this.revision,
      software: 'js',
      addresses: this.node.getMultiaddrs().map(address => address.decapsulate(`/p2p/${this.node.peerId}`).bytes),
      host: hostToken(),
      applications: Object.entries(this.applications).map(([name, actions]) => ({ name, actions: Object.keys(actions) })),
      ...more
    }
    this.mine = { value, envelope: await seal(this.key, this.swarm, 'record', value) }
    this.records.set(this.#me, this.mine)
    await this.#gossip({ record: this.mine.envelope })
  }

  get #me () { return hex(this.node.peerId.toMultihash().bytes) }

  // A library that finds no subscriber yet says so; sync tells those that come later.
  async #gossip (value) { await this.node.services.pubsub.publish(this.topic, write(value)).catch(() => {}) }

  async #sendBeat () {
    const { incarnation, revision } = this
    await this.#gossip({ beat: await seal(this.key, this.swarm, 'beat', { incarnation, revision, beat: ++this.beat, load: 0 }) })
  }

  async #merge (envelope) {
    const record = await open(this.swarm, 'record', envelope)
    const known = this.records.get(record.id)
    if (record.id === this.#me || (known && !newer(record.value, known.value))) return false
    if (record.value.left) this.records.delete(record.id)
    else this.records.set(record.id, record)
    return true
  }

  async #onGossip (message) {
    try {
      const { record, beat } = read(message.data)
      if (record) return await this.#merge(record) ? 'accept' : 'ignore'
      await open(this.swarm, 'beat', beat)
      return 'accept'
    } catch {
      return 'reject'
    }
  }

  // Exchanges of directories.

  async #ask (connection, request) {
    const stream = await connection.newStream(this.#id('sync'), { signal: AbortSignal.timeout(SYNC_LIMIT_MS) })
    stream.send(write(request))
    const closing = stream.close()
    const answer = await whole(stream)
    await closing
    return answer
  }

  async #offer (connection) {
    for (let round = 0; round < ROUNDS; round++) {
      const offer = { digest: digest(this.records), versions: versions(this.records), records: [this.mine.envelope] }
      const { records = [], wanted = [], more } = await this.#ask(connection, { offer })
      for (const record of records) await this.#merge(record)
      const pushed = wanted.map(id => this.records.get(hex(id))?.envelope).filter(Boolean)
      if (pushed.length) await this.#ask(connection, { push: { records: pushed } })
      if (!more) return
    }
  }

  async #onSync (stream) {
    const request = await whole(stream)
    const told = request.offer ?? request.push
    for (const record of told?.records ?? []) await this.#merge(record)
    stream.send(write(request.offer ? this.#level(request.offer) : { same: false }))
    await stream.close()
  }

  #level ({ digest: theirs, versions: listed }) {
    if (hex(theirs) === hex(digest(this.records))) return { same: true }
    if (!listed) return { same: false, needs_versions: true }
    const held = new Map(listed.map(([id, version]) => [hex(id), version]))
    const lacks = ([id, { value }]) => !held.has(id) || newer(value, held.get(id))
    const later = ([id, version]) => id !== this.#me && (!this.records.has(id) || newer(version, this.records.get(id).value))
    return {
      same: false,
      records: [...this.records].filter(lacks).map(([, { envelope }]) => envelope),
      wanted: [...held].filter(later).map(([id]) => Uint8Array.from(Buffer.from(id, 'hex')))
    }
  }

  // Calls.

  #lane (stream, peerId) {
    const lane = new Lane(stream, (lane, frame) => this.#onFrame(lane, frame), lane => this.#onLaneEnd(lane))
    lane.peerId = peerId
    this.all.add(lane)
    return lane
  }

  async call (connection, application, action, args, deadline = 10000) {
    const who = connection.remotePeer.toString()
    if (!this.lanes.get(who)?.isOpen) {
      this.lanes.set(who, this.#lane(await connection.newStream(this.#id('lane')), connection.remotePeer))
    }
    const [lane, id] = [this.lanes.get(who), this.nextId++]
    return await new Promise((resolve, reject) => {
      this.waiting.set(id, { lane, resolve, reject })
      lane.send([CALL, id, application, action, deadline, 0, null, write(args)])
    })
  }

  #onFrame (lane, [kind, id, ...rest]) {
    if (kind === CALL) this.#serve(lane, id, rest)
    else if (kind === TELL) lane.send([ERROR, id, 2, '', 'it takes no tells', new Uint8Array()])
    else if (kind === REPLY) this.#settle(id, ({ resolve }) => resolve(read(rest[0])))
    else if (kind === ACCEPTED) this.#settle(id, ({ resolve }) => resolve(null))
    else if (kind === ERROR) this.#settle(id, ({ reject }) => reject(Object.assign(new Error(rest[2]), { code: rest[0], name: rest[1] })))
    else if (kind === GOODBYE && this.lanes.get(lane.peerId.toString()) !== lane) lane.send([GOODBYE])
  }

  #settle (id, how) {
    const waiting = this.waiting.get(Number(id))
    this.waiting.delete(Number(id))
    if (waiting) how(waiting)
  }

  #onLaneEnd (lane) {
    this.all.delete(lane)
    for (const [id, waiting] of this.waiting) {
      if (waiting.lane === lane) this.#settle(id, ({ reject }) => reject(lane.error ?? new Error('the lane has ended')))
    }
  }

  async #serve (lane, id, [application, action, , , , payload]) {
    const refuse = (code, message) => lane.isOpen && lane.send([ERROR, id, code, '', message, new Uint8Array()])
    const actions = this.applications[application]
    if (!actions) return refuse(1, 'no such application')
    if (!Object.hasOwn(actions, action)) return refuse(2, 'no such action')
    try {
      const result = await actions[action](read(payload))
      if (lane.isOpen) lane.send([REPLY, id, write(result)])
    } catch (error) {
      refuse(0, error.message)
    }
  }

  async stop () {
    clearInterval(this.beats)
    await this.#renew({ left: true })
    const { envelope } = this.mine
    const push = connection => this.#ask(connection, { push: { records: [envelope] } }).catch(() => {})
    await Promise.all(this.node.getConnections().map(push))
    for (const lane of this.all) lane.send([GOODBYE])
    await this.node.stop()
  }
}

async function whole (stream) {
  const parts = []
  for await (const chunk of stream) parts.push(chunk.subarray())
  return read(join(...parts))
}
