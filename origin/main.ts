/** The origin as a process. */
import { accessFaults, accessSection } from '../src/access/config.js';
import { askReload } from '../src/commands/ask-reload.js';
import { withBaseUri } from '../src/dev/service-address.js';
import { logSection } from '../src/log.js';
import { type ChoreWords, type ProcessEntry, processEntry } from '../src/process.js';
import { originFaults, originSection, originWarnings } from './config.js';
import { type ImportWords, runImport } from './import/import.js';
import { checkOriginLive } from './live-check.js';
import { openOrigin } from './origin.js';
import { runThumbs, type ThumbsVerb } from './thumbs/commands.js';
import { runBackup, runFsck, runMigrate, runRestore, runScrub } from './upkeep/commands.js';
import { runWebhooks } from './webhooks/commands.js';

export const entry: ProcessEntry = processEntry({
  name: 'origin',
  sections: { log: logSection, access: accessSection, origin: originSection },
  start: openOrigin,
  adjust: (config) => withBaseUri(config, process.env),
  check: ({ access, origin }) => [...accessFaults(access), ...originFaults(origin)],
  warn: ({ origin }) => originWarnings(origin),
  chores: {
    live: checkOriginLive,
    reload: ({ origin }, tools) => askReload({ ...tools, name: 'origin', config: origin.operators }),
    fsck: ({ origin }, tools, { repair }) => runFsck({ ...tools, config: origin }, { repair: repair === true }),
    scrub: ({ origin }, tools, { after }) =>
      runScrub({ ...tools, config: origin }, { after: typeof after === 'string' ? after : undefined }),
    backup: ({ origin }, tools, { folder }) => runBackup({ ...tools, config: origin }, { folder: String(folder) }),
    restore: ({ origin }, tools, { folder, incomplete }) =>
      runRestore({ ...tools, config: origin }, { folder: String(folder), incomplete: incomplete === true }),
    migrate: ({ origin }, tools, { to, check }) =>
      runMigrate({ ...tools, config: origin }, { to: to === 'lmdb' ? 'lmdb' : 'postgres', check: check === true }),
    thumbs: ({ origin }, tools, { verb, all }) =>
      runThumbs({ ...tools, config: origin }, { verb: readVerb(verb), all: all === true }),
    import: (config, tools, words) => runImport({ ...tools, config }, readImportWords(words)),
    webhooks: ({ origin }, tools, { verb }) =>
      runWebhooks({ ...tools, config: origin }, { verb: verb === 'retry' ? 'retry' : 'status' }),
  },
});

/** The command line offers no other words. */
function readVerb(word: unknown): ThumbsVerb {
  return word === 'retry' || word === 'backfill' ? word : 'status';
}

function readImportWords(words: ChoreWords): ImportWords {
  const { source, base, owner, results, to, jobs } = words;
  const text = (word: unknown): string | undefined => (typeof word === 'string' ? word : undefined);
  return {
    source: String(source),
    base: text(base),
    defaults: { owner: text(owner) ?? null, public: words['public'] === true },
    results: String(results),
    urls: to as readonly string[],
    jobs: Number(jobs),
    check: words['check'] === true,
    statesTypes: words['ignoreTypes'] !== true,
  };
}
