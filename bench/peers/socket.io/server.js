// A chat as socket.io's tutorial writes one: `io.to(room).emit`.
//
// WebSocket is the only transport, compression is off (the default), and bufferutil is there.
'use strict';
const {createServer} = require('node:http');
const {Server} = require('socket.io');

const http = createServer();
const io = new Server(http, {transports: ['websocket'], serveClient: false});

io.on('connection', (socket) => {
  let joined;
  socket.on('join', (room, done) => {
    joined = room;
    socket.join(room);
    done();
  });
  socket.on('message', (text) => io.to(joined).emit('message', text));
});

http.listen({host: '127.0.0.1', port: Number(process.argv[2]), backlog: 1024});
