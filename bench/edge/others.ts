/**
 * nginx and Varnish of the system in front of the bare server, as the benchmark
 * compares the edge with them. A program that is not installed is left out.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestCertificate } from '../../test/kit/certificates.js';
import { ownPort } from '../../test/kit/ports.js';
import type { ServerName } from './rows.js';

export interface Other {
  readonly name: ServerName;
  readonly port: number;
  readonly child: ChildProcess;
}

export interface OthersDeps {
  readonly home: string;
  /** The ports of the bare server and of the auth server. */
  readonly origin: number;
  readonly auth: number;
  readonly certificate: TestCertificate | undefined;
  readonly stops: (() => unknown)[];
}

/** The version, or undefined if the program is not installed. */
export function versionOf(program: 'nginx' | 'varnishd'): string | undefined {
  const run = spawnSync(program, [program === 'nginx' ? '-v' : '-V'], { encoding: 'utf8' });
  return run.error === undefined ? /(?:nginx\/|varnish-)([\d.]+)/.exec(run.stderr)?.[1] : undefined;
}

/**
 * One nginx with three servers. `same duties` checks a token with an auth server,
 * whose answers it keeps, writes a line of JSON for each request, and gives each
 * request an id.
 */
export async function startNginx(deps: OthersDeps): Promise<Other[]> {
  if (versionOf('nginx') === undefined) return [];
  const { origin, auth, certificate, stops } = deps;
  const home = join(deps.home, 'nginx');
  mkdirSync(home);
  const [plain, duties, tls] = [await ownPort(), await ownPort(), await ownPort()];
  const cached = 'proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_cache hits;';
  const secure =
    certificate === undefined
      ? ''
      : `server { listen 127.0.0.1:${tls} ssl http2; ssl_certificate ${certificate.certFile}; ssl_certificate_key ${certificate.keyFile};
         ssl_protocols TLSv1.3; location / { ${cached} } }`;
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  const config = `
daemon off; ${process.getuid?.() === 0 ? 'user root;' : ''} worker_processes 1; pid ${home}/pid; error_log ${home}/error.log;
events { worker_connections 4096; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; open_file_cache max=30000;
  ${temporary.map((name) => `${name}_temp_path ${home}/${name};`).join(' ')}
  proxy_cache_path ${home}/cache levels=1:2 keys_zone=hits:50m max_size=4g;
  proxy_cache_path ${home}/tokens keys_zone=tokens:10m;
  log_format line escape=json '{"level":"info","time":"$time_iso8601","pid":$pid,"request_id":"$request_id","method":"$request_method",'
    '"target":"$request_uri","status":$status,"outcome":"$upstream_cache_status","bytes":$bytes_sent,"total_ms":$request_time}';
  upstream origin { server 127.0.0.1:${origin}; keepalive 64; }
  upstream auth { server 127.0.0.1:${auth}; keepalive 8; }
  server { listen 127.0.0.1:${plain}; location / { ${cached} add_header X-Cache $upstream_cache_status; } }
  server { listen 127.0.0.1:${duties}; access_log ${home}/access.log line buffer=64k flush=1s;
    location / { auth_request /auth; ${cached} add_header X-Cache $upstream_cache_status; add_header X-Request-Id $request_id; }
    location = /auth { internal; proxy_pass http://auth/auth; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_cache tokens; proxy_cache_key $http_authorization;
      proxy_cache_valid 204 10m; } }
  ${secure}
}`;
  writeFileSync(join(home, 'nginx.conf'), config);
  const child = spawn('nginx', ['-p', home, '-c', join(home, 'nginx.conf'), '-e', `${home}/error.log`], {
    stdio: 'inherit',
  });
  stops.push(() => child.kill());
  return [
    { name: 'nginx', port: plain, child },
    { name: 'nginx, same duties', port: duties, child },
    ...(certificate === undefined ? [] : [{ name: 'nginx, TLS' as const, port: tls, child }]),
  ];
}

export async function startVarnish({ home, origin, stops }: OthersDeps): Promise<Other[]> {
  if (versionOf('varnishd') === undefined) return [];
  const port = await ownPort();
  const args = ['-F', '-n', join(home, 'varnish'), '-a', `127.0.0.1:${port}`, '-b', `127.0.0.1:${origin}`];
  const child = spawn('varnishd', [...args, '-s', 'malloc,256m', '-j', 'none'], { stdio: 'ignore' });
  stops.push(() => child.kill());
  return [{ name: 'Varnish', port, child }];
}
