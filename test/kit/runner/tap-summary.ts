/**
 * Turns the TAP of test files into a report: failures in full, one line for each file, and the closing line
 * `N passed, N failed, N skipped`, which counts assertions.
 */
import { Transform, type TransformCallback } from 'node:stream';
import { Parser, type Result } from 'tap-parser';

export default class Summary extends Transform {
  readonly #counts = { passed: 0, failed: 0, skipped: 0 };
  readonly #parser = new Parser();

  constructor() {
    super({ decodeStrings: false });
    this.#parser.on('result', (result: Result) => this.#count(result));
    this.#parser.on('child', (file: Parser) => this.#follow(file));
  }

  override _transform(chunk: Buffer | string, _encoding: string, done: TransformCallback): void {
    this.#parser.write(chunk);
    done();
  }

  override _flush(done: TransformCallback): void {
    this.#parser.end();
    const { passed, failed, skipped } = this.#counts;
    this.push(`\n${passed} passed, ${failed} failed, ${skipped} skipped\n`);
    done();
  }

  #follow(file: Parser): void {
    file.on('complete', (results) => {
      const { pass, fail, skip, time } = results;
      const mark = results.ok ? 'ok  ' : 'FAIL';
      const counts = [`${pass} passed`];
      if (fail > 0) counts.push(`${fail} failed`);
      if (skip > 0) counts.push(`${skip} skipped`);
      if (time !== null) counts.push(`${(time / 1_000).toFixed(1)} s`);
      this.push(`${mark} ${file.name} (${counts.join(', ')})\n`);
    });
  }

  #count(result: Result): void {
    if (result.skip !== false || result.todo !== false) {
      this.#counts.skipped += 1;
      const why = [result.skip, result.todo].find((reason) => typeof reason === 'string') ?? '';
      this.push(`     skipped: ${result.fullname} ${why === '' ? '' : `(${why})`}\n`);
    } else if (result.ok) {
      this.#counts.passed += 1;
    } else {
      this.#counts.failed += 1;
      this.push(`\nfailed: ${result.fullname} › ${result.name}\n${diagnosis(result)}\n`);
    }
  }
}

function diagnosis(result: Result): string {
  return result.diag === null || result.diag === undefined ? '' : JSON.stringify(result.diag, undefined, 2);
}
