/**
 * Starts the servers that the chosen rows need and gives each of them the same
 * bodies: an origin with edges as in production, the bare server, nginx, Varnish.
 */
import { fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hasOpenssl, selfSigned } from '../../test/kit/certificates.js';
import { makeJpeg } from '../../test/kit/pictures.js';
import { openProcesses } from '../../test/kit/processes.js';
import { untilAsync } from '../../test/kit/until.js';
import { family } from './cpu.js';
import { startNginx, startVarnish } from './others.js';
import { CONTENTS, type Content, type ServerName } from './rows.js';

export interface Server {
  readonly name: string;
  readonly port: number;
  readonly tls: boolean;
  /** Fields beside those of the row. */
  readonly fields: string;
  pathOf(content: Content): string;
  /** Its processes. */
  pids(): readonly number[];
}

export interface Started {
  readonly servers: readonly Server[];
  readonly bodies: ReadonlyMap<Content, Buffer>;
}

export interface StartOptions {
  readonly folder: string;
  readonly wanted: ReadonlySet<ServerName>;
  /** The command of another build, whose edges are measured too. */
  readonly beside: string | undefined;
  readonly stops: (() => unknown)[];
}

const NO_LIMITS = { requests_max: 0, uploaded_max: '0', downloaded_max: '0' };

export async function startServers({ folder, wanted, beside, stops }: StartOptions): Promise<Started> {
  const processes = await openProcesses(folder);
  stops.push(() => processes.close());
  const origin = await processes.launch('origin', {
    upload: { size_max: '16MB' },
    rate_limits: { subject: NO_LIMITS, address: NO_LIMITS },
  });
  const originUrl = await origin.ready;
  const certificate = hasOpenssl ? selfSigned(folder, 'bench') : undefined;
  const files = join(folder, 'files');
  mkdirSync(files);
  const authorization = processes.user['authorization'] ?? '';
  const media = await uploadAll(originUrl, authorization);
  for (const [content, bytes] of media.bodies) writeFileSync(join(files, content), bytes);
  const bare = await startBare([files], stops);
  const auth = await startBare([files, authorization.slice('Bearer '.length)], stops);
  const servers: Server[] = [];
  const token = `Authorization: ${authorization}\r\n`;
  for (const cli of beside === undefined ? [undefined] : [undefined, beside]) {
    for (const [name, edge] of Object.entries(edgesOf(originUrl, bare.port, certificate))) {
      if (!wanted.has(name as ServerName)) continue;
      const as = `${name.replaceAll(/\W+/g, '-')}${cli === undefined ? '' : '-beside'}`;
      const section = { ...edge.section, cache: { ...edge.section.cache, folder: `./data/${as}` } };
      const launched = await processes.launch('edge', section, {
        as,
        requests: edge.logs ? 'all' : 'none',
        level: edge.logs ? 'info' : 'error',
        ...(cli === undefined ? {} : { cli }),
      });
      const port = Number(new URL(await launched.ready).port);
      const paths = name === 'edge, token' ? media.kept : media.open;
      servers.push({
        name: cli === undefined ? name : `${name} (beside)`,
        port,
        tls: name === 'edge, TLS',
        fields: name === 'edge, token' ? token : '',
        pathOf: (content) => paths.get(content) ?? '',
        pids: () => family(launched),
      });
    }
  }
  const pathOf = (content: Content): string => `/${content}`;
  if (wanted.has('node:http')) {
    servers.push({
      name: 'node:http',
      port: bare.port,
      tls: false,
      fields: '',
      pathOf,
      pids: () => family(bare.child),
    });
  }
  const deps = { home: folder, origin: bare.port, auth: auth.port, certificate, stops };
  const others = [...(await startNginx(deps)), ...(wanted.has('Varnish') ? await startVarnish(deps) : [])];
  for (const { name, port, child } of others) {
    if (!wanted.has(name)) continue;
    const fields = name === 'nginx, same duties' ? token : '';
    servers.push({ name, port, tls: name === 'nginx, TLS', fields, pathOf, pids: () => family(child) });
  }
  return { servers, bodies: media.bodies };
}

interface EdgeSetting {
  readonly section: { readonly cache?: Readonly<Record<string, unknown>> } & Readonly<Record<string, unknown>>;
  readonly logs: boolean;
}

function edgesOf(
  originUrl: string,
  bare: number,
  certificate: { readonly certFile: string; readonly keyFile: string } | undefined,
): Partial<Record<ServerName, EdgeSetting>> {
  const upstream = { url: originUrl };
  const open = { rate_limits: { enabled: false }, upstream };
  const tls = { certificate_file: certificate?.certFile, key_file: certificate?.keyFile };
  const generic = { access: 'off', upstream: { url: `http://127.0.0.1:${bare}` } };
  return {
    'edge, token': { section: open, logs: true },
    'edge, public': { section: open, logs: false },
    'edge, 2 workers': { section: { ...open, workers: 2 }, logs: false },
    'edge, disk': { section: { ...open, cache: { memory: { size: '0' } } }, logs: false },
    ...(certificate === undefined
      ? {}
      : { 'edge, TLS': { section: { ...open, listen: { port: 0, tls } }, logs: false } }),
    'edge, generic': { section: { ...open, ...generic, cache: { memory: { size: '32MB' } } }, logs: false },
  };
}

interface Media {
  readonly bodies: Map<Content, Buffer>;
  /** Paths of private and of public media. */
  readonly kept: Map<Content, string>;
  readonly open: Map<Content, string>;
}

async function uploadAll(originUrl: string, authorization: string): Promise<Media> {
  const media: Media = { bodies: new Map(), kept: new Map(), open: new Map() };
  const upload = async (body: Buffer, open: boolean): Promise<string> => {
    const response = await fetch(`${originUrl}/v1/media?public=${open}`, {
      method: 'POST',
      headers: { authorization, 'content-type': 'application/octet-stream' },
      body: new Uint8Array(body),
    });
    if (response.status > 201) throw new Error(`an upload was answered ${response.status}: ${await response.text()}`);
    return `/v1/media/${((await response.json()) as { id: string }).id}`;
  };
  for (const [content, sizeBytes] of Object.entries(CONTENTS) as [Content, number][]) {
    const body = Buffer.concat([Buffer.from('%PDF-1.7\n'), randomBytes(sizeBytes - 9)]);
    media.bodies.set(content, body);
    media.kept.set(content, await upload(body, false));
    media.open.set(content, await upload(body, true));
  }
  const picture = await makeJpeg(1, 1_200, 800);
  media.kept.set('thumb', `${await upload(picture, false)}/thumb?w=320`);
  media.open.set('thumb', `${await upload(picture, true)}/thumb?w=320`);
  for (const path of [media.kept.get('thumb'), media.open.get('thumb')]) {
    await untilAsync('the thumbnail to be made', async () => {
      const response = await fetch(`${originUrl}${path}`, { headers: { authorization, accept: 'image/webp' } });
      const bytes = Buffer.from(await response.arrayBuffer());
      media.bodies.set('thumb', bytes);
      return response.status === 200 && response.headers.get('media-placeholder') === null;
    });
  }
  return media;
}

async function startBare(args: readonly string[], stops: (() => unknown)[]) {
  const child = fork(new URL('./bare.js', import.meta.url), [...args]);
  stops.push(() => child.disconnect());
  const [port] = (await once(child, 'message')) as [number];
  return { child, port };
}
