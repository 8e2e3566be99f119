/** Prometheus's own checker finds no fault in the metrics of both processes, nor in the alert rules. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { sendRequest } from '../../kit/http/request.js';
import { makeJpeg } from '../../kit/pictures.js';
import { startService } from '../../kit/service.js';
import { FILE_HANGS_AFTER_MS } from '../../kit/until.js';

t.setTimeout(FILE_HANGS_AFTER_MS);

const FOLDER = fileURLToPath(new URL('../../../../src/deploy/monitoring/', import.meta.url));

async function promtool(words: readonly string[], input = ''): Promise<{ code: number; said: string } | undefined> {
  const child = spawn('promtool', words, { stdio: 'pipe' });
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
  child.stdin.on('error', () => undefined).end(input);
  try {
    const [code] = (await once(child, 'close')) as [number];
    return { code, said };
  } catch {
    return undefined;
  }
}

const absent = (await promtool(['--version'])) === undefined;
const skip = absent ? 'promtool is not installed (Debian: prometheus)' : false;

void t.test('the metrics of both processes', { skip }, async (t) => {
  const service = await startService(t.testdir());
  t.teardown(() => service.stop());
  const token = await service.token();
  const headers = { authorization: `Bearer ${token}` };
  const body = await makeJpeg(1, 64, 48);
  const uploaded = await sendRequest(`${service.edge}/v1/media`, {
    method: 'POST',
    headers: { ...headers, 'content-type': 'image/jpeg' },
    body,
  });
  const { id } = JSON.parse(uploaded.bytes.toString()) as { readonly id: string };
  for (let count = 0; count < 2; count += 1) await sendRequest(`${service.edge}/v1/media/${id}`, { headers });
  await sendRequest(`${service.edge}/v1/media/${id}`);
  for (const operators of [service.edgeOperators, service.originOperators]) {
    const { bytes } = await sendRequest(`${operators}/metrics`);
    const text = bytes.toString();
    const checked = await promtool(['check', 'metrics'], text);
    t.same(checked, { code: 0, said: '' }, operators);
    t.match(text, /^media_build_info\{version="\d+\.\d+\.\d+[^"]*",node="v\d+/m);
  }
});

void t.test('the alert rules, and a configuration that names them', { skip }, async (t) => {
  for (const words of [
    ['check', 'rules', `${FOLDER}alerts.yaml`],
    ['check', 'config', `${FOLDER}prometheus.yaml`],
  ]) {
    const checked = await promtool(words);
    t.equal(checked?.code, 0, checked?.said ?? '');
  }
});
