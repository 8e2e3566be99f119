/**
 * Pages for browsers, kept as files: HTML and CSS as they stand in the source, scripts as they were compiled. Nothing is
 * bundled; a script loads its modules by their paths in the project.
 *
 * Promises: only the files of the named folders are served, and a page of the routes runs no script but its own, loads
 * nothing from elsewhere, and stands in no frame. Leaves to others: who may open it.
 */
import { readFile } from 'node:fs/promises';
import { errorCode, Fault } from '../../errors.js';
import type { Reply } from '../../http/reply.js';
import { type Parameter, type Route, route } from '../routes.js';

/** Of the project, from where this file is compiled to. */
const ROOT = new URL('../../../../', import.meta.url);

const TYPES: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8',
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
};

export interface PageFile {
  readonly type: string;
  readonly bytes: Buffer;
}

/** `path`: in the project, such as `src/live/chart.js`. Undefined if there is no such file. */
export async function readPageFile(path: string): Promise<PageFile | undefined> {
  const type = TYPES[path.split('.').at(-1) ?? ''];
  if (type === undefined) return undefined;
  try {
    return { type, bytes: await readFile(new URL(path.endsWith('.js') ? `dist/${path}` : path, ROOT)) };
  } catch (thrown) {
    if (errorCode(thrown) === 'ENOENT') return undefined;
    throw thrown;
  }
}

/** What the live pages of both processes are made with. */
const SHARED = ['src/live', 'src/client'];

/** A live page at `/`: the file `index.html` of this folder, and the scripts and styles that it may load. */
export function pageRoutes<C>(folder: string): readonly Route<C>[] {
  const notes = { methods: ['GET', 'HEAD'], audience: 'anyone', hidden: true, query: {}, responses: [] } as const;
  return [
    route({
      ...notes,
      pattern: '/',
      summary: 'A live page.',
      path: {},
      handle: async (_request: C) => await fileReply(`${folder}/index.html`),
    }),
    ...[folder, ...SHARED].map((each) =>
      route({
        ...notes,
        pattern: `/${each}/{file}`,
        summary: 'A script or a style of it.',
        path: { file: fileName },
        handle: async (_request: C, { file }) => await fileReply(`${each}/${file}`),
      }),
    ),
  ];
}

const fileName: Parameter<string> = {
  help: 'The name of a script or a style.',
  schema: { type: 'string' },
  read(text = '') {
    if (!/^[a-z][a-z-]{0,40}\.(?:js|css)$/.test(text)) throw new Fault('not_found', 'There is nothing at this path.');
    return text;
  },
};

/** Scripts put text into a page as text: with Trusted Types, nothing else is possible. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  'img-src data:',
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ');

async function fileReply(path: string): Promise<Reply> {
  const file = await readPageFile(path);
  if (file === undefined) throw new Fault('not_found', 'There is nothing at this path.');
  return {
    status: 200,
    headers: [
      ['content-type', file.type],
      ['cache-control', 'no-store'],
      ['content-security-policy', POLICY],
      ['x-content-type-options', 'nosniff'],
      ['referrer-policy', 'no-referrer'],
      ['cross-origin-opener-policy', 'same-origin'],
      ['cross-origin-resource-policy', 'same-origin'],
    ],
    body: { kind: 'bytes', bytes: file.bytes },
  };
}
