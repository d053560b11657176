// What crosses the wire: signed envelopes, digests and keys of private swarms (sections 1, 5 and 7 of PROTOCOL.md).
import { createHash, hkdfSync } from 'node:crypto'
import { readFileSync, readlinkSync } from 'node:fs'
import { publicKeyFromProtobuf, publicKeyToProtobuf } from '@libp2p/crypto/keys'
import { peerIdFromPublicKey } from '@libp2p/peer-id'
import { decode, encode } from 'cborg'

export const bytes = text => new TextEncoder().encode(text)
export const join = (...parts) => Uint8Array.from(Buffer.concat(parts))
export const hex = part => Buffer.from(part).toString('hex')
export const sha256 = part => createHash('sha256').update(part).digest()
export const read = part => decode(part, { useMaps: false })
export const write = encode

export function derive (secret, what, swarm) {
  return Buffer.from(hkdfSync('sha256', secret, '', `multinodes/1/${what}/${swarm}`, 32))
}

function varint (number) {
  const out = []
  for (; number > 127; number = Math.floor(number / 128)) out.push(number % 128 + 128)
  return Uint8Array.from([...out, number])
}

const counted = part => join(varint(part.length), part)
const FIELDS = [1, 2, 3, 5]

function toSign (swarm, kind, payload) {
  return join(counted(bytes(`multinodes/${swarm}/${kind}`)), counted(bytes(`/multinodes/${kind}/1`)), counted(payload))
}

export async function seal (key, swarm, kind, value) {
  const payload = write(value)
  const signature = await key.sign(toSign(swarm, kind, payload))
  const parts = [publicKeyToProtobuf(key.publicKey), bytes(`/multinodes/${kind}/1`), payload, signature]
  return join(...parts.map((part, index) => join(varint(FIELDS[index] * 8 + 2), counted(part))))
}

export async function open (swarm, kind, envelope) {
  const parts = []
  let at = 0
  for (const field of FIELDS) {
    if (envelope[at++] !== field * 8 + 2) throw new Error('an envelope that is not canonical')
    let length = 0
    for (let shift = 1; ; shift *= 128) {
      const byte = envelope[at++]
      length += (byte % 128) * shift
      if (byte < 128) break
    }
    parts.push(envelope.subarray(at, at += length))
  }
  const [key, , payload, signature] = [publicKeyFromProtobuf(parts[0]), ...parts.slice(1)]
  if (at !== envelope.length || !await key.verify(toSign(swarm, kind, payload), signature)) throw new Error('a bad envelope')
  return { id: hex(peerIdFromPublicKey(key).toMultihash().bytes), value: read(payload), envelope }
}

export function newer (one, other) {
  const order = version => [BigInt(version.incarnation), BigInt(version.revision)]
  const [a, b] = [order(one), order(other)]
  return a[0] !== b[0] ? a[0] > b[0] : a[1] > b[1]
}

/** Of records by the hexadecimal peer id. */
export function versions (records) {
  return [...records].sort(([one], [other]) => one < other ? -1 : 1)
    .map(([id, { value: { incarnation, revision } }]) => [Uint8Array.from(Buffer.from(id, 'hex')), { incarnation, revision }])
}

export function digest (records) {
  const hash = createHash('sha256')
  const long = number => { const out = Buffer.alloc(8); out.writeBigUInt64BE(BigInt(number)); return out }
  for (const [id, { incarnation, revision }] of versions(records)) {
    hash.update(long(id.length)).update(id).update(long(incarnation)).update(long(revision))
  }
  return Uint8Array.from(hash.digest().subarray(0, 16))
}

/** On Linux; without it the record's loopback addresses are of no use to anybody. */
export function hostToken () {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  return Uint8Array.from(sha256(bytes(boot + readlinkSync('/proc/self/ns/net'))).subarray(0, 16))
}
