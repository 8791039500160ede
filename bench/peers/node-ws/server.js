// A chat as the README of `ws` writes one: every message goes to each member with `send`.
//
// The room is the path. Compression is off, which is the default, and bufferutil is there.
'use strict';
const {WebSocketServer, WebSocket} = require('ws');

const rooms = new Map();

new WebSocketServer({host: '127.0.0.1', port: Number(process.argv[2]), backlog: 1024})
  .on('connection', (member, request) => {
    if (!rooms.has(request.url)) rooms.set(request.url, new Set());
    const room = rooms.get(request.url);
    room.add(member);
    member.on('error', console.error);
    member.on('close', () => room.delete(member));
    member.on('message', (data, binary) => {
      for (const other of room) {
        if (other.readyState === WebSocket.OPEN) other.send(data, {binary});
      }
    });
  });
