/** The paths on which operators ask about single requests: `/explain`, `/log` and `/top`. */
import type { IncomingMessage } from 'node:http';
import { Fault } from '../../src/errors.js';
import { wholeNumber } from '../../src/http/head.js';
import { jsonReply } from '../../src/http/reply.js';
import { parseMediaId } from '../../src/ids.js';
import { type Parameter, route } from '../../src/server/routes.js';
import { OUTCOMES } from '../request.js';
import { readExplain } from './explain.js';
import { readJson } from './read-json.js';
import type { Cursor, Watching } from './watching.js';

const NOTES = { audience: 'anyone', path: {}, responses: [] } as const;

export function watchingRoutes(watching: Watching, orderMaxBytes: number) {
  return [
    route({
      ...NOTES,
      methods: ['POST'],
      pattern: '/explain',
      summary: 'Why the edge would answer a request as it would.',
      query: {},
      handle: async (request: IncomingMessage) => {
        const read = readExplain(await readJson(request, orderMaxBytes));
        if (read.kind === 'refused')
          throw new Fault('malformed', `The request to explain is malformed: ${read.detail}.`);
        return jsonReply(200, { explanations: await watching.explain(read.order) });
      },
    }),
    route({
      ...NOTES,
      methods: ['GET'],
      pattern: '/log',
      summary: 'The requests that have ended, while somebody asks.',
      query: {
        after: cursor,
        outcome: word('The outcome.', (text) => OUTCOMES.some((each) => each === text)),
        id: word('A media id.', (text) => parseMediaId(text) !== undefined),
        rule: number('The number of a rule.'),
        status: number('The status.'),
      },
      handle: async (_request: IncomingMessage, _path, { after, ...filter }) =>
        jsonReply(200, await watching.log(after, filter)),
    }),
    route({
      ...NOTES,
      methods: ['GET'],
      pattern: '/top',
      summary: 'The most frequent objects, misses, clients and reasons, while somebody asks.',
      query: {},
      handle: async (_request: IncomingMessage) => jsonReply(200, await watching.top()),
    }),
  ];
}

/** `1:12,2:7`: the number of each process and of its last request that is known. */
const cursor: Parameter<Cursor> = {
  help: 'What `after` was in the last answer.',
  schema: { type: 'string' },
  read(text = '') {
    if (!/^(?:\d{1,3}:\d{1,15}(?:,(?!$)|$))*$/.test(text)) throw new Fault('malformed', '`after` is malformed.');
    return Object.fromEntries(text.split(',').map((each) => each.split(':').map(Number)));
  },
};

export function writeCursor(after: Cursor): string {
  return Object.entries(after)
    .map(([process, seq]) => `${process}:${seq}`)
    .join(',');
}

function word(help: string, suits: (text: string) => boolean): Parameter<string | undefined> {
  return {
    help,
    schema: { type: 'string' },
    read(text, name) {
      if (text === undefined || suits(text)) return text;
      throw new Fault('malformed', `\`${name}\` has no such value.`);
    },
  };
}

function number(help: string): Parameter<number | undefined> {
  return {
    help,
    schema: { type: 'integer' },
    read(text, name) {
      const value = wholeNumber(text);
      if (text === undefined || value !== undefined) return value;
      throw new Fault('malformed', `\`${name}\` must be a number.`);
    },
  };
}
