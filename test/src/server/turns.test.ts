/** The turns of the responses of one connection, and the deadlines of the heads of its requests. */
import { EventEmitter } from 'node:events';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import t from 'tap';
import { createHeadDeadlines } from '../../../src/server/head-deadlines.js';
import { createTurns } from '../../../src/server/turns.js';
import { ManualClock } from '../../kit/clock.js';

class Response extends EventEmitter {
  destroyed = 0;
  destroy(): void {
    this.destroyed += 1;
  }
}

function connection(closed = false) {
  const turns = createTurns();
  const socket = Object.assign(new EventEmitter(), { closed }) as unknown as Socket;
  const order: string[] = [];
  return {
    turns,
    socket,
    order,
    request: (name: string, complete = true) => {
      const request = { socket, complete } as unknown as IncomingMessage;
      const response = new Response().on('close', () => order.push(name));
      turns.add(request, response as unknown as ServerResponse);
      return { request, response };
    },
  };
}

const turn = (): Promise<void> => new Promise(setImmediate);

void t.test('the latest request of a connection is known, answered or not', async (t) => {
  const { turns, socket, request } = connection();
  t.equal(turns.last(socket), undefined);
  const first = request('first');
  t.strictSame(
    [turns.last(socket)?.request === first.request, turns.last(socket)?.response === (first.response as unknown)],
    [true, true],
  );
  const second = request('second', false);
  second.response.emit('close');
  t.equal(turns.last(socket)?.request, second.request);
});

void t.test('what comes after all whole requests waits for the last of their answers', async (t) => {
  const { turns, socket, request, order } = connection();
  turns.afterWhole(socket, () => order.push('at once'));
  const [first, second] = [request('first'), request('second')];
  request('in part', false);
  turns.afterWhole(socket, () => order.push('after'));
  first.response.emit('close');
  t.strictSame(order, ['at once', 'first']);
  second.response.emit('close');
  t.strictSame(order, ['at once', 'first', 'second', 'after']);
});

void t.test('the last request counts if it was received whole', async (t) => {
  const { turns, socket, request, order } = connection();
  const [first, last] = [request('first'), request('last')];
  turns.afterWhole(socket, () => order.push('after'));
  first.response.emit('close');
  t.strictSame(order, ['first']);
  last.response.emit('close');
  t.strictSame(order, ['first', 'last', 'after']);
});

void t.test('a request that was received in part alone is not waited for, nor one that is answered', async (t) => {
  const { turns, socket, request, order } = connection();
  const answered = request('answered');
  answered.response.emit('close');
  request('in part', false);
  turns.afterWhole(socket, () => order.push('at once'));
  t.strictSame(order, ['answered', 'at once']);
});

void t.test('with the connection each response that is not complete ends, after node has ended its own', async (t) => {
  const { socket, request, order } = connection();
  const answered = request('answered');
  answered.response.emit('close');
  const [first, second] = [request('first'), request('second')];
  socket.emit('close');
  t.strictSame([first.response.destroyed, second.response.destroyed], [0, 0]);
  first.response.emit('close');
  await turn();
  t.strictSame(order, ['answered', 'first', 'second']);
  t.strictSame(
    [answered, first, second].map(({ response }) => response.destroyed),
    [0, 0, 1],
  );
});

void t.test('a request whose connection is closed already ends in the next turn', async (t) => {
  const { request, order } = connection(true);
  const late = request('late');
  t.strictSame(order, []);
  await turn();
  t.strictSame(order, ['late']);
  t.equal(late.response.destroyed, 1);
  const open = connection();
  open.request('waits');
  await turn();
  t.strictSame(open.order, []);
});

void t.test('a head has one deadline, from its first byte', async (t) => {
  const clock = new ManualClock();
  clock.advance(7_000);
  const server = new EventEmitter();
  const late: [unknown, unknown][] = [];
  server.on('clientError', (error: { code?: string }, socket) => late.push([error.code, socket]));
  const heads = createHeadDeadlines(server as unknown as Server, clock, 1_000);
  const socket = (destroyed = false): Socket => ({ destroyed }) as Socket;
  const one = socket();
  heads.begin(one);
  clock.advance(600);
  heads.begin(one);
  t.equal(clock.pending, 1, 'a further byte does not set another');
  clock.advance(399);
  t.strictSame(late, []);
  clock.advance(1);
  t.strictSame(late, [['ERR_HTTP_REQUEST_TIMEOUT', one]]);

  const met = socket();
  heads.begin(met);
  heads.met(met);
  t.equal(clock.pending, 0);
  heads.begin(met);
  t.equal(clock.pending, 1, 'the next head of the connection has a deadline of its own');
  heads.met(met);
  heads.met(socket());

  heads.begin(socket(true));
  t.equal(clock.pending, 0, 'a connection that is gone needs none');

  const given = socket();
  heads.set(given, clock.monotonicMs() + 50);
  clock.advance(49);
  t.equal(late.length, 1);
  clock.advance(1);
  t.equal(late[1]?.[1], given);
  const overdue = socket();
  heads.set(overdue, clock.monotonicMs() - 50);
  clock.advance(0);
  t.equal(late[2]?.[1], overdue);
  heads.missed(one);
  t.equal(late[3]?.[1], one);
});
