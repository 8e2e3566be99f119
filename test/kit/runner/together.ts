/** Runs test files one after the other in this process, as groups.ts wants it: `together.js FILE…`. */
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { END } from './groups.js';

const files = process.argv.slice(2);
// Folders of tests are named by the command line: by the first file, which is in no other group.
process.argv.length = 3;
const { default: t } = await import('tap');
for (const file of files) {
  await import(pathToFileURL(resolve(file)).href);
  await t.test(END + file, async () => undefined);
}
