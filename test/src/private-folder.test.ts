import { chmod, mkdir, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { openPrivateFolder, tightenFile } from '../../src/private-folder.js';

const skip = process.platform === 'win32' ? 'there are no such rights' : false;
const modeOf = async (path: string): Promise<string> => ((await stat(path)).mode & 0o7777).toString(8);

void t.test('a folder of ours and what is in it are for this user alone', { skip }, async (t) => {
  const folder = t.testdir({ old: { 'data.mdb': 'x', tool: 'x', inner: {} }, elsewhere: 'x', shared: { file: 'x' } });
  const at = (...names: string[]): string => join(folder, ...names);

  await openPrivateFolder(at('new', 'deep'));
  t.equal(await modeOf(at('new')), '700');
  t.equal(await modeOf(at('new', 'deep')), '700');

  await chmod(at('old'), 0o755);
  await chmod(at('old', 'data.mdb'), 0o664);
  await chmod(at('old', 'tool'), 0o750);
  await chmod(at('elsewhere'), 0o644);
  await symlink(at('elsewhere'), at('old', 'link'));
  await openPrivateFolder(at('old'));
  t.equal(await modeOf(at('old')), '700');
  t.equal(await modeOf(at('old', 'data.mdb')), '600');
  t.equal(await modeOf(at('old', 'tool')), '700', 'what this user may do stays');
  t.equal(await modeOf(at('elsewhere')), '644', 'links are not followed');

  await chmod(at('shared'), 0o1777);
  await chmod(at('shared', 'file'), 0o644);
  await openPrivateFolder(at('shared'));
  t.equal(await modeOf(at('shared')), '1777', 'a folder for everybody stays one');
  t.equal(await modeOf(at('shared', 'file')), '644');

  await tightenFile(at('elsewhere'));
  t.equal(await modeOf(at('elsewhere')), '600');
  await tightenFile(at('absent'));
  await writeFile(at('file'), '');
  await t.rejects(openPrivateFolder(at('file')), { code: 'EEXIST' });
  await mkdir(at('read-only'), { mode: 0o500 });
  await openPrivateFolder(at('read-only'));
  t.equal(await modeOf(at('read-only')), '500');
});
