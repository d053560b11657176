// A peer on js-libp2p beside a node of this project, for as long as a stock libp2p needs to end a stream of pings, and
// longer. Started by scripts/foreign.sh:
//
//   node check.mjs SWARM ADDRESS [SECRET]
import { Peer } from './peer.mjs'

const [swarm, address, text] = process.argv.slice(2)
const secret = text && Buffer.from(text.trim().split(':')[1], 'base64url')
// More than a frame of yamux may have in some implementations, and than a window has at first.
const LARGE = 6 * 1024 * 1024

const applications = { foreign: { upper: ([word]) => word.toUpperCase(), zeros: ([count]) => '0'.repeat(count) } }
const peer = await Peer.start({ swarm, name: 'js', listen: ['/ip4/127.0.0.1/tcp/0'], applications, secret })
const connection = await peer.join(address)
peer.node.addEventListener('connection:close', ({ detail }) => {
  if (detail.id === connection.id) fail('the connection has ended')
})
console.log(`listening ${peer.node.getMultiaddrs()[0]}`)

const answer = await peer.call(connection, 'node', 'echo', [new Uint8Array(LARGE)])
if (answer.length !== LARGE) fail(`the echo has ${answer.length} bytes`)
console.log('ok: a call with 6 MiB')
await peer.call(connection, 'node', 'echo', [1, 2]).then(() => fail('echo took two values'), ({ code, name }) => {
  if (code !== 3 || name !== 'bad_arguments') fail(`code ${code}, name ${name}`)
})
console.log('ok: bad arguments are code 3, with a name')
console.log('ready')

let ended = false
function fail (why) {
  if (ended) return
  console.log(`FAILED: ${why}`)
  process.exit(1)
}

// Its standard input ends when it is to stop.
process.stdin.resume()
process.stdin.on('end', async () => {
  ended = true
  await peer.stop()
  console.log('stopped')
  process.exit(0)
})
