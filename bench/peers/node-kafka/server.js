// A chat of several replicas with `ws` and kafkajs: what is said goes to Kafka with its room as the
// key, every replica reads all partitions, and delivers what it read with `send` to each member.
//
// As in ours, a message counts once all in-sync brokers have it. Messages that come while a request
// is under way go with the next one, together: one request for each would be slower. Every replica
// is a consumer group of its own and commits nothing. It listens once it reads.
'use strict';
const {randomUUID} = require('node:crypto');
const {Kafka, Partitioners, logLevel} = require('kafkajs');
const {WebSocketServer, WebSocket} = require('ws');

const port = Number(process.argv[2]);
const topic = process.env.KAFKA_TOPIC;
const kafka = new Kafka({
  brokers: process.env.KAFKA_BOOTSTRAP_SERVERS.split(','),
  logLevel: logLevel.ERROR,
});
const producer = kafka.producer({createPartitioner: Partitioners.DefaultPartitioner});
const consumer = kafka.consumer({groupId: randomUUID()});
const rooms = new Map();

let waiting = [];
let sending = false;

async function produce() {
  if (sending) return;
  sending = true;
  while (waiting.length > 0) {
    const messages = waiting;
    waiting = [];
    await producer.send({topic, acks: -1, messages});
  }
  sending = false;
}

function deliver(message) {
  const text = message.value.toString();
  for (const member of rooms.get(message.key.toString()) ?? []) {
    if (member.readyState === WebSocket.OPEN) member.send(text);
  }
}

function listen() {
  const server = new WebSocketServer({host: '127.0.0.1', port, backlog: 1024});
  server.on('connection', (member, request) => {
    if (!rooms.has(request.url)) rooms.set(request.url, new Set());
    const room = rooms.get(request.url);
    room.add(member);
    member.on('error', console.error);
    member.on('close', () => room.delete(member));
    member.on('message', (value) => {
      waiting.push({key: request.url, value});
      produce();
    });
  });
}

async function main() {
  await producer.connect();
  await consumer.connect();
  await consumer.subscribe({topic, fromBeginning: true});
  consumer.on(consumer.events.GROUP_JOIN, listen);
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({batch}) => batch.messages.forEach(deliver),
  });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
