/** A gate with what it needs around it: an Authentication Service, keys, a clock and a log that a test can read. */
import type { Test } from 'tap';
import type { AccessConfig } from '../../../src/access/config.js';
import { openGate } from '../../../src/access/gate.js';
import type { Caller, Credentials, Gate, Grant } from '../../../src/access/grant.js';
import type { MediaId } from '../../../src/ids.js';
import { createLog } from '../../../src/log.js';
import { createMetrics } from '../../../src/metrics.js';
import {
  type AuthService,
  configFor,
  type Members,
  makeKey,
  openAuthService,
  type SigningKey,
} from '../auth-service.js';
import { ManualClock } from '../clock.js';

export const ID = '01HZXK3V9QW8E7R6T5Y4M3N2B1' as MediaId;
export const PATH = `/v1/media/${ID}`;

export const RSA = makeKey('rsa', 'RS256');
export const EC = makeKey('ec', 'ES256');
export const ED = makeKey('ed', 'EdDSA');
export const FOREIGN = makeKey('ed', 'EdDSA');

export interface GateStage {
  readonly clock: ManualClock;
  readonly auth: AuthService;
  readonly gate: Gate;
  readonly lines: string[];
  readonly open: (token: string, over?: Partial<Credentials>) => Promise<Grant>;
  readonly metrics: () => Promise<string>;
}

/** A gate that trusts one service. */
export async function setUp(
  t: Test,
  section: Members | ((auth: AuthService) => Members) = {},
  keys: readonly SigningKey[] = [RSA, EC, ED],
): Promise<GateStage> {
  const clock = new ManualClock();
  const auth = await openAuthService(clock, keys);
  const given = typeof section === 'function' ? section(auth) : section;
  const { gate, lines, metrics } = gateFor(t, clock, configFor(auth, given));
  t.teardown(() => auth.close());
  const open = async (token: string, over: Partial<Credentials> = {}): Promise<Grant> =>
    await gate.open(bearing(token, over));
  return { clock, auth, gate, lines, open, metrics };
}

export function gateFor(
  t: Test,
  clock: ManualClock,
  config: AccessConfig,
): { gate: Gate; lines: string[]; metrics: () => Promise<string> } {
  const lines: string[] = [];
  const log = createLog('test', { level: 'debug' }, { write: (line) => void lines.push(line) });
  const metrics = createMetrics('media_');
  const gate = openGate({ config, clock, log, metrics });
  t.teardown(() => gate.close());
  return { gate, lines, metrics: async () => (await metrics.render()).text };
}

export function bearing(token: string, over: Partial<Credentials> = {}): Credentials {
  return { method: 'GET', path: PATH, query: '', authorization: `Bearer ${token}`, ...over };
}

export function refused(refusal: string): Members {
  return { kind: 'anonymous', refusal };
}

export function callerOf(grant: Grant): Caller {
  if (grant.kind !== 'caller') throw new Error(`not a caller: ${JSON.stringify(grant)}`);
  return grant.caller;
}
