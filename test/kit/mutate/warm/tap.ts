/**
 * A small tap for a process in which test files run again and again. It judges as tap does, but ends a file at its first
 * failure. What it does not have makes a test file fail here, which then runs in a process of its own.
 */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { Test } from 'tap';

/** What one run of a test file came to so far. */
export class FileRun {
  /** The folder in which the folders of its tests are made. */
  readonly folder: string;
  /** Aborted by the first failure. */
  readonly #ended = new AbortController();
  #folders = 0;

  constructor(folder: string) {
    this.folder = folder;
  }

  get failed(): boolean {
    return this.#ended.signal.aborted;
  }

  fail(): void {
    this.#ended.abort();
  }

  /** Resolves a while after the first failure: a test that waits for what no longer comes is left behind. */
  async givenUp(): Promise<void> {
    const { signal } = this.#ended;
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    await new Promise((resolve) => setTimeout(resolve, AFTER_FAILURE_MS));
  }

  nextFolder(): string {
    this.#folders += 1;
    return join(this.folder, String(this.#folders));
  }
}

const AFTER_FAILURE_MS = 300;
const TEARDOWN_MS = 10_000;

class Failed extends Error {}

type Body = (t: WarmTest) => unknown;
type Judge = Pick<Test, 'same' | 'strictSame' | 'match' | 'notMatch' | 'type'>;

export class WarmTest {
  readonly name: string;
  readonly #run: FileRun;
  readonly #judge: Judge;
  readonly #teardowns: (() => unknown)[] = [];
  readonly #aborted = new AbortController();
  #subtests: Promise<void> = Promise.resolve();
  #end: () => void = () => {};
  readonly #ended = new Promise<void>((resolve) => {
    this.#end = resolve;
  });
  #folder: string | null = null;

  constructor(name: string, run: FileRun, judge: Judge = new Test({ name })) {
    this.name = name;
    this.#run = run;
    this.#judge = judge;
  }

  get signal(): AbortSignal {
    return this.#aborted.signal;
  }

  get testdirName(): string {
    this.#folder ??= this.#run.nextFolder();
    return this.#folder;
  }

  /** Runs a body to its end, with its subtests and what it tears down. */
  async perform(body: Body): Promise<void> {
    const whole = async (): Promise<void> => {
      try {
        const result = body(this);
        await (result instanceof Promise ? (result as Promise<unknown>) : this.#ended);
        await this.#subtests;
      } catch {
        this.#run.fail();
      }
    };
    await Promise.race([whole(), this.#run.givenUp()]);
    const late = new Promise((resolve) => setTimeout(resolve, TEARDOWN_MS).unref());
    await Promise.race([this.#tearDown(), late]);
    this.#aborted.abort();
  }

  test(name: string, ...rest: readonly unknown[]): Promise<void> {
    const body = rest.find((one) => typeof one === 'function') as Body | undefined;
    const options = rest.find((one) => typeof one === 'object') as { skip?: unknown } | undefined;
    if (body === undefined || options?.skip) return Promise.resolve();
    this.#subtests = this.#subtests.then(async () => {
      if (!this.#run.failed) await new WarmTest(name, this.#run, this.#judge).perform(body);
    });
    return this.#subtests;
  }

  end(): void {
    this.#end();
  }

  teardown(undo: () => unknown): void {
    this.#teardowns.unshift(undo);
  }

  comment(): void {}
  setTimeout(): void {}
  pass(): true {
    return true;
  }

  fail(): never {
    this.#run.fail();
    throw new Failed();
  }

  ok(value: unknown): true {
    return Boolean(value) || this.fail();
  }

  notOk(value: unknown): true {
    return !value || this.fail();
  }

  equal(found: unknown, wanted: unknown): true {
    return Object.is(found, wanted) || this.fail();
  }

  not(found: unknown, wanted: unknown): true {
    return !Object.is(found, wanted) || this.fail();
  }

  same(found: unknown, wanted: unknown): true {
    return isDeepStrictEqual(found, wanted) || this.#judge.same(found, wanted) || this.fail();
  }

  strictSame(found: unknown, wanted: unknown): true {
    return isDeepStrictEqual(found, wanted) || this.#judge.strictSame(found, wanted) || this.fail();
  }

  match(found: unknown, wanted: unknown): true {
    return this.#judge.match(found, wanted) || this.fail();
  }

  notMatch(found: unknown, wanted: unknown): true {
    return this.#judge.notMatch(found, wanted) || this.fail();
  }

  type(found: unknown, wanted: string): true {
    return this.#judge.type(found, wanted) || this.fail();
  }

  throws(act: () => unknown, wanted?: unknown): unknown {
    try {
      act();
    } catch (thrown) {
      return this.#thrown(thrown, wanted);
    }
    return this.fail();
  }

  doesNotThrow(act: () => unknown): true {
    try {
      act();
    } catch {
      this.fail();
    }
    return true;
  }

  async rejects(work: Promise<unknown> | (() => Promise<unknown>), wanted?: unknown): Promise<unknown> {
    try {
      await (typeof work === 'function' ? work() : work);
    } catch (thrown) {
      return this.#thrown(thrown, wanted);
    }
    return this.fail();
  }

  testdir(content: unknown = {}): string {
    place(this.testdirName, content);
    return this.testdirName;
  }

  fixture(type: string, content: unknown): Fixture {
    return new Fixture(type, content);
  }

  /** Returns what was thrown, as tap does, where it is what was wanted. */
  #thrown(thrown: unknown, wanted: unknown): unknown {
    if (thrown instanceof Failed) throw thrown;
    if (wanted === undefined || wanted === null || typeof wanted === 'string') return thrown;
    this.match(wanted instanceof RegExp && thrown instanceof Error ? thrown.message : thrown, wanted);
    return thrown;
  }

  async #tearDown(): Promise<void> {
    for (const undo of this.#teardowns) {
      try {
        await undo();
      } catch {
        this.#run.fail();
      }
    }
  }
}

class Fixture {
  readonly type: string;
  readonly content: unknown;

  constructor(type: string, content: unknown) {
    this.type = type;
    this.content = content;
  }
}

function place(path: string, content: unknown): void {
  const inner = content instanceof Fixture ? content.content : content;
  if (content instanceof Fixture && content.type === 'symlink') symlinkSync(String(inner), path);
  else if (typeof inner === 'string' || inner instanceof Uint8Array) writeFileSync(path, inner);
  else {
    mkdirSync(path, { recursive: true });
    for (const [name, each] of Object.entries(inner as object)) place(join(path, name), each);
  }
}
