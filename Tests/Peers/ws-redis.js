// A broadcast server as one writes it with `ws` and `redis`: what Martlet is compared with (make bench). It speaks just
// enough of Martlet's protocol for `martlet bench` to drive it: join and message, acknowledged with a `seq` for each room.
// Several of these share one Redis: a script numbers a message and publishes it, and each server relays it to its members.
// There is no history, presence, deduplication, limit or recovery.
//
//   NODE_PATH=/usr/share/nodejs node ws-redis.js PORT REDIS_SOCKET
'use strict';
const { WebSocketServer } = require('ws');
const { createClient, defineScript } = require('redis');
const [port, path] = process.argv.slice(2);
const here = `${process.pid}`;
const prefix = 'peer:';
const rooms = new Map(); // name → set of sockets
let sockets = 0;

// In one script, so that messages of one room that come through two servers are relayed in the order of their numbers.
const publish = defineScript({
  NUMBER_OF_KEYS: 1,
  SCRIPT: `local seq = redis.call('INCR', KEYS[1])
           redis.call('PUBLISH', KEYS[1], seq .. ' ' .. ARGV[1])
           return seq`,
  transformArguments: (key, rest) => [key, rest],
  transformReply: (seq) => seq,
});

async function main() {
  const redis = createClient({ socket: { path }, scripts: { publish } });
  const subscriber = redis.duplicate();
  await Promise.all([redis.connect(), subscriber.connect()]);

  // What is published: SEQ SERVER SOCKET ID REST, where REST is the message as all get it, but for its start.
  function relay(name, published) {
    const [seq, server, number, id] = published.split(' ', 4);
    const rest = published.slice(seq.length + server.length + number.length + id.length + 4);
    const message = Buffer.from(`{"type":"message","seq":${seq},${rest}`);
    for (const socket of rooms.get(name) ?? []) {
      if (server !== here || socket.number !== +number) socket.send(message, { binary: false });
      else socket.send(JSON.stringify({ type: 'ack', room: name, id, seq: +seq, ts: Date.now() }));
    }
  }

  async function join(socket, name) {
    if (!rooms.has(name)) {
      rooms.set(name, new Set());
      rooms.get(name).ready = subscriber.subscribe(prefix + name, (published) => relay(name, published));
    }
    await rooms.get(name).ready;
    const seq = +(await redis.get(prefix + name) ?? 0);
    rooms.get(name).add(socket);
    socket.rooms.add(name);
    socket.send(JSON.stringify({ type: 'joined', room: name, seq, count: rooms.get(name).size }));
  }

  new WebSocketServer({ port: +port, host: '127.0.0.1', perMessageDeflate: false }).on('connection', (socket) => {
    socket.number = ++sockets;
    socket.rooms = new Set();
    socket.on('message', (data) => {
      const { type, room, text, id } = JSON.parse(data);
      if (type === 'join') return join(socket, room);
      const rest = JSON.stringify({ room, from: `${socket.number}`, text, ts: Date.now() }).slice(1);
      redis.publish(prefix + room, `${here} ${socket.number} ${id} ${rest}`);
    });
    socket.on('close', () => { for (const name of socket.rooms) rooms.get(name).delete(socket); });
    socket.on('error', () => socket.terminate());
    socket.send(JSON.stringify({ type: 'welcome', user: `${socket.number}` }));
  }).on('listening', () => console.log('ready'));
}

main();
