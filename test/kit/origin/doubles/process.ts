/** Child processes that render, as doubles: a test says what they do. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { PassThrough } from 'node:stream';
import type { ChildConfig } from '../../../../origin/thumbs/render/child.js';
import type { Launch, Launcher } from '../../../../origin/thumbs/render/launcher.js';
import { NO_RENDERED_FACTS, type RenderRequest, type RenderResult } from '../../../../origin/thumbs/render/protocol.js';
import { thumbsConfig } from '../thumb-fixture.js';

export const MiB = 2 ** 20;

/** A process of which the test says what it does. */
export class FakeProcess extends EventEmitter {
  readonly stderr = new PassThrough();
  readonly sent: unknown[] = [];
  readonly launch: Launch;
  pid: number | undefined;
  killed = 0;
  /** Whether it is gone as soon as it is killed. */
  obeys = true;
  sendFailure: Error | null = null;
  #gone = false;

  constructor(launch: Launch, pid: number | undefined) {
    super();
    this.launch = launch;
    this.pid = pid;
  }

  send(message: unknown, sent: (error: Error | null) => void): boolean {
    this.sent.push(message);
    sent(this.sendFailure);
    return true;
  }

  kill(signal: string): boolean {
    assert.equal(signal, 'SIGKILL');
    this.killed += 1;
    if (this.obeys) queueMicrotask(() => this.leave(null, 'SIGKILL'));
    return true;
  }

  leave(code: number | null, signal: string | null = null): void {
    if (this.#gone) return;
    this.#gone = true;
    this.emit('close', code, signal);
  }

  says(message: unknown): void {
    this.emit('message', message);
  }

  ready(): void {
    this.says({ t: 'ready' });
  }
}

/** A launcher of such processes. */
export function fakeProcesses(pid?: number) {
  const started: FakeProcess[] = [];
  let refusal: Error | null = null;
  const launcher: Launcher = {
    confinement: { network: 'none', privileges: 'none_gained' },
    start(launch) {
      if (refusal !== null) throw refusal;
      const fake = new FakeProcess(launch, pid);
      started.push(fake);
      return fake as unknown as ChildProcess;
    },
  };
  const refuse = (reason: Error | null): void => {
    refusal = reason;
  };
  return { launcher, started, refuse };
}

export const request: RenderRequest = {
  input: 'in',
  folder: 'out',
  upright: false,
  animate: true,
  settings: thumbsConfig(),
};
export const result: RenderResult = {
  kind: 'refused',
  reason: 'broken_image',
  facts: NO_RENDERED_FACTS,
  detail: 'why',
};
export const CHILD_CONFIG: ChildConfig = {
  ...thumbsConfig().children,
  startLimitMs: 1_000,
  timeLimitMs: 5_000,
  niceness: 0,
  memoryMaxBytes: 10_000 * MiB,
  cpuLimitMs: 1e9,
};
