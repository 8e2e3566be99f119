#!/usr/bin/env node
/**
 * The command line. It knows the processes by the paths of their entry modules
 * and loads only the one that is needed.
 */
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Argument, Command, InvalidArgumentError, Option } from 'commander';
import type { Tokens } from './acceptance/world.js';
import { type AccessConfig, accessSection } from './access/config.js';
import { parseDuration } from './bytes.js';
import { keepAlive, systemClock } from './clock.js';
import { runCheck } from './commands/check.js';
import { completionFor, SHELLS, type Shell } from './commands/completion.js';
import { newSecret, newWebhookSecret, writeSecret } from './commands/secret.js';
import { showConfig } from './commands/show-config.js';
import { formatFaults, loadConfig } from './config/load.js';
import type { RenderTexts } from './config/render.js';
import { withoutSecretsContext } from './config/without-secrets.js';
import { issueToken, openDevAuth } from './dev/auth-service.js';
import { prepareSecrets, runDev } from './dev/dev.js';
import { openPage } from './dev/page.js';
import { type ProcessEntry, runChore, runProcess, startFailure } from './process.js';
import { ownVersion } from './version.js';

/** The entry module of each process, relative to this one. */
const ENTRIES = { origin: '../origin/main.js', edge: '../edge/main.js' } as const;
type EntryName = keyof typeof ENTRIES;

const DEFAULT_CONFIG = 'config.yaml';
const DATA_FOLDER = 'data';
/** Short, so that the page shows how tokens are renewed. */
const PAGE_TOKEN_MS = 10 * 60_000;

const CONFIG_TEXTS: RenderTexts = {
  preamble: [
    'Configuration of media-service. Every key is shown with its default. Leave out what you do not change.',
    'Sizes are written 10MB or 64KiB, durations 250ms, 30s, 5m, 24h or 7d. Secrets are never written into the file: write env:NAME or file:PATH. Relative paths start at the folder in which the process runs.',
    'A running process applies a change of the keys that are marked live: on SIGHUP, by "media-service reload", or when the file is saved. All others need a restart.',
    '"media-service check --config FILE" lists every fault of a file at once.',
  ],
  firstHelp: 'Most files need only these keys. Each is explained below.',
  firstKeys: [
    'access.issuers',
    'access.audiences',
    'access.edge_secret',
    'access.links.secrets',
    'origin.listen.host',
    'origin.listen.port',
    'origin.base_uri',
    'origin.upload.size_max',
    'origin.blobs.adaptor',
    'origin.blobs.folder',
    'origin.blobs.stage_folder',
    'origin.meta.folder',
    'edge.name',
    'edge.listen.host',
    'edge.listen.port',
    'edge.upstream.url',
    'edge.cache.folder',
    'edge.cache.memory.size',
    'edge.cache.disk.size',
  ],
};

interface ConfigOption {
  readonly config?: string;
}

const HELP = `
Examples:
  media-service dev                                  everything on this machine, to try it
  media-service secret ./secrets/edge                a new secret in a file
  media-service check --config config.yaml --live    is the file right, and can all that it names be reached?
  media-service origin --config config.yaml          the origin
  media-service edge --config config.yaml            an edge
  media-service explain https://chat.example/v1/media/ID
  media-service acceptance --edge URL --origin URL   is what its interface promises kept, seen from outside?
  media-service COMMAND --help                       the options of a command

Exit codes: 0 done; 1 it failed, found something wrong, or the command line is wrong; 2 the configuration has faults, or no
process answers; 130 stopped. A process that is asked to stop by a signal exits with 0; one that a bug ends is killed at
once (137; 134 as the first process of a container), and its log has the reason.`;

const IMPORT_HELP = `
The columns of a list are path, id, owner, name, type, sha256, public and created; only path is needed. The first line of CSV
names them. An id is imported once: the same command goes on where it was stopped, and tries again what was refused.

Examples:
  media-service import ./pictures --owner @alice:chat.example --check
  media-service import media.csv --base /var/lib/synapse/media_store
  media-service import media.jsonl --to https://origin-1.example --to https://origin-2.example --jobs 16
  psql -c "COPY (...) TO STDOUT CSV HEADER" | media-service import - --base /srv/media

Exit codes: 0 all is imported; 1 something was refused; 2 it cannot go on; 130 stopped.`;

const SIMULATE_HELP = `
Examples:
  media-service simulate --trace data/edge/trace --config new.yaml --skip 20%
  media-service simulate --trace a.trace b.trace --config new.yaml --today config.yaml --json
  media-service simulate --trace data/edge/trace --sweep whatif --tier memory --sample 10%

Simulated, by the code that the edge runs: which tiers store a response, what they evict and admit, rules, and freshness:
lifetimes are those that the origin stated, as the rules change them. As recorded: takedowns, purges and the expiry of media
(when the edge dropped its copy), bodies that were fetched because of a HEAD, and what could not be stored. The caches are
empty at first; a fetch takes no time; an edge of several workers counts as one. Of a sample of 1/n of the keys (sample_share,
--sample), caches of 1/n of the size are simulated, and totals are multiplied by n; a few thousand keys are enough.
"recorded" is what the edge itself did.

Exit codes: 0 done; 1 a trace cannot be read, or the command line is wrong; 2 a configuration has faults; 130 stopped.`;

const ACCEPTANCE_HELP = `
It works only on media that it uploads itself, and deletes them at the end, also after Ctrl-C. It never purges, and never
deletes or quarantines anything else. A certificate of your own authority: set NODE_EXTRA_CA_CERTS.

Exit codes: 0 every promise that was tried is kept; 1 one is broken; 2 nothing could be tried; 130 stopped.`;

const program = new Command('media-service')
  .description('A media service for chat: an origin that stores media and an edge that caches and serves it.')
  .version(ownVersion(), '-V, --version', 'print the version')
  .addHelpText('after', HELP)
  .showHelpAfterError('(media-service --help lists the commands)');

program
  .command('dev')
  .description('run an origin, an edge and a development Authentication Service on this machine')
  .option('-c, --config <file>', 'configuration file', DEFAULT_CONFIG)
  .action(async (options: ConfigOption) => {
    process.exitCode = await dev(configPath(options));
  });

for (const name of Object.keys(ENTRIES) as EntryName[]) {
  program
    .command(name)
    .description(`run the ${name}`)
    .option('-c, --config <file>', 'configuration file', DEFAULT_CONFIG)
    .action(async (options: ConfigOption) => {
      process.exit(await runProcess(await loadEntry(name), configPath(options)));
    });
}

program
  .command('check')
  .description('list every fault of a configuration file, and what may be a mistake')
  .option('-c, --config <file>', 'configuration file', DEFAULT_CONFIG)
  .addOption(new Option('--as <process>', 'only what this process reads').choices(Object.keys(ENTRIES)))
  .option('--without-secrets', 'secrets that are not on this machine are no fault', false)
  .option('--live', 'also try whether storage, database, Authentication Service and origin can be reached', false)
  .action(async (options: ConfigOption & { as?: EntryName; withoutSecrets: boolean; live: boolean }) => {
    process.exitCode = await runCheck(await loadEntries(options.as), { ...options, ...printing(options) });
  });

program
  .command('config')
  .description('print a configuration file with every key at its default')
  .option('-c, --config <file>', 'with --effective: the configuration file', DEFAULT_CONFIG)
  .addOption(new Option('--as <process>', 'only what this process reads').choices(Object.keys(ENTRIES)))
  .option('--explain <key>', 'print the meaning of one key or section, such as edge.cache.disk.size')
  .option('--effective', 'print the value of every key, and where it comes from', false)
  .action(async (options: ConfigOption & { as?: EntryName; explain?: string; effective: boolean }) => {
    const words = { explain: options.explain, effective: options.effective, ...printing(options) };
    process.exitCode = showConfig(await loadEntries(options.as), CONFIG_TEXTS, words);
  });

program
  .command('token')
  .description('print a token of the development Authentication Service')
  .option('--sub <name>', 'the user of the token', 'alice')
  .option('--admin', 'allow deleting and quarantining', false)
  .option('--expires <duration>', 'how long it is valid: 90s, 15m, 1h, 7d', '1h')
  .option('-c, --config <file>', 'configuration file', DEFAULT_CONFIG)
  .action(async (options: ConfigOption & { sub: string; admin: boolean; expires: string }) => {
    process.exitCode = await token(options);
  });

const originChore = (word: string, about: string): Command =>
  program.command(word).description(about).option('-c, --config <file>', 'configuration file', DEFAULT_CONFIG);

async function chore(word: string, options: ConfigOption, words: Readonly<Record<string, unknown>>): Promise<void> {
  process.exitCode = await runChore(await loadEntry('origin'), word, configPath(options), words);
}

originChore('fsck', 'compare records, blobs, thumbnails, jobs and journal (while the origin is stopped)')
  .option('--repair', 'repair what can be repaired safely', false)
  .action((options: ConfigOption & { repair: boolean }) => chore('fsck', options, { ...options }));

originChore('scrub', 'read every stored byte again and withhold damaged media (also while the origin runs)')
  .option('--after <sha256>', 'continue after this hash')
  .action((options: ConfigOption & { after?: string }) => chore('scrub', options, { ...options }));

originChore('backup', 'copy everything to a folder (also while the origin runs)')
  .argument('<folder>', 'the target; a later backup to the same folder copies only what is new')
  .action((folder: string, options: ConfigOption) => chore('backup', options, { folder }));

originChore('restore', 'put a backup into the storage that the configuration names (while the origin is stopped)')
  .argument('<folder>', 'a backup; a restore that was stopped continues where it was')
  .option('--incomplete', 'restore even if originals are missing; their media are withheld', false)
  .action((folder: string, options: ConfigOption & { incomplete: boolean }) =>
    chore('restore', options, { ...options, folder }),
  );

originChore(
  'migrate',
  'move all metadata to the other store that the configuration names (while the origin is stopped)',
)
  .addOption(new Option('--to <adaptor>', 'where they go').choices(['postgres', 'lmdb']).default('postgres'))
  .option('--check', 'only look whether the database can be used', false)
  .action((options: ConfigOption & { to: string; check: boolean }) => chore('migrate', options, { ...options }));

originChore('import', 'bring files of another media store into the running service, in the names of their owners')
  .argument(
    '<source>',
    'a folder (also the media_store of Synapse), or a list as CSV or JSON lines; -: a list on standard input',
  )
  .option('--base <folder>', 'the folder of the paths in a list; otherwise that of the list')
  .option('--owner <subject>', 'whose they are, where the list has no owner')
  .option('--public', 'anyone may read them, where the list does not say', false)
  .option('--results <folder>', 'where the map of ids and the list of what was refused are kept', 'import')
  .option(
    '--to <url>',
    'the service, if it is not the origin of this configuration here; may be given again',
    gatherUrls,
    [],
  )
  .option('--jobs <number>', 'how many are sent at once, 1 to 64', readJobs, 4)
  .option('--ignore-types', 'leave the types to the bytes, whatever the list says', false)
  .option('--check', 'only look what would be imported and what refused, and why', false)
  .addHelpText('after', IMPORT_HELP)
  .action((source: string, options: ConfigOption) => chore('import', options, { ...options, source }));

originChore('thumbs', 'the queue of thumbnails of a running origin')
  .addArgument(
    new Argument(
      '<what>',
      'show the queue, retry failed jobs, or make thumbnails that are missing or outdated',
    ).choices(['status', 'retry', 'backfill']),
  )
  .option('--all', 'with backfill: make the others again too', false)
  .action((verb: string, options: ConfigOption & { all: boolean }) => chore('thumbs', options, { ...options, verb }));

originChore('webhooks', 'the events of a running origin for the chat server')
  .addArgument(
    new Argument('<what>', 'show what waits and what was given up, or send the latter again').choices([
      'status',
      'retry',
    ]),
  )
  .action((verb: string, options: ConfigOption) => chore('webhooks', options, { ...options, verb }));

function readJobs(value: string): number {
  if (/^\d{1,2}$/.test(value) && Number(value) >= 1 && Number(value) <= 64) return Number(value);
  throw new InvalidArgumentError('It is a number from 1 to 64.');
}

function gatherUrls(value: string, before: readonly string[]): readonly string[] {
  if (URL.canParse(value) && /^https?:\/\/[^/?#]+\/*$/.test(value)) return [...before, value];
  throw new InvalidArgumentError('It is an address such as https://media.example, without a path.');
}

const edgeChore = (word: string, about: string): Command =>
  program.command(word).description(about).option('-c, --config <file>', 'configuration file', DEFAULT_CONFIG);

edgeChore('explain', 'why the running edge would answer a request as it would: key, variant, rule, freshness, tier')
  .argument('<url>', 'the URL or its path')
  .option('-H, --header <field>', 'a field of the request, `name: value`; may be given again', gather, [])
  .option('-I, --head', 'a HEAD instead of a GET', false)
  .action((url: string, options: ConfigOption) => edgeDoes('explain', options, { ...options, url }));

edgeChore('top', 'the most frequent objects, misses, clients and reasons of the running edge')
  .addArgument(
    new Argument('[list]', 'one list alone').choices(['objects', 'misses', 'clients', 'reasons', 'refreshing']),
  )
  .option('-n, --lines <number>', 'lines of each list', '10')
  .option('-s, --seconds <number>', 'how long to count before each print', '10')
  .option('--once', 'print once and end', false)
  .action((list: string | undefined, options: ConfigOption) => edgeDoes('top', options, { ...options, list }));

edgeChore('log', 'the requests of the running edge as they end')
  .option('--outcome <word>', 'only this outcome, such as miss or hit_memory')
  .option('--rule <number>', 'only responses that this entry of edge.rules matches; 0: none')
  .option('--id <id>', 'only this media')
  .option('--status <number>', 'only this status')
  .option('-s, --seconds <number>', 'end after so long')
  .option('--json', 'lines of JSON, with every field', false)
  .action((options: ConfigOption) => edgeDoes('log', options, { ...options }));

edgeChore('purge', 'drop copies from the cache of the running edge, so that it fetches them again')
  .option('--id <id>', 'of this media and its thumbnails; may be given again', gather, [])
  .option('--prefix <path>', 'of every path that starts so, such as /v1/media/01J')
  .option('--all', 'all of them', false)
  .action((options: ConfigOption) => edgeDoes('purge', options, { ...options }));

program
  .command('simulate')
  .description('what another configuration would have done with the requests that an edge has recorded')
  .requiredOption('-t, --trace <file...>', 'files that the edge wrote (edge.trace), or their folder')
  .option('-c, --config <file>', 'the new configuration', DEFAULT_CONFIG)
  .option('--today <file>', 'the present configuration', DEFAULT_CONFIG)
  .option('--skip <share>', 'the share of requests that fill the caches and are not counted, such as 20%', '0')
  .option('--sample <share>', 'simulate only this share of the keys, which is faster', '1')
  .option('--sweep <path>', 'draw hit ratio over the size of a tier for each policy: PATH.svg and PATH.html')
  .addOption(
    new Option('--tier <tier>', 'with --sweep: whose size; without it: disk, if there is one').choices([
      'memory',
      'disk',
    ]),
  )
  .option('--json', 'print the figures as JSON', false)
  .addHelpText('after', SIMULATE_HELP)
  .action(async (options: ConfigOption & { today: string }) => {
    const words = { ...options, config: configPath(options), today: configPath({ config: options.today }) };
    process.exitCode = await runChore(await loadEntry('edge'), 'simulate', undefined, words, withoutSecretsContext);
  });

function gather(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}

async function edgeDoes(word: string, options: ConfigOption, words: Readonly<Record<string, unknown>>): Promise<void> {
  process.exitCode = await runChore(await loadEntry('edge'), word, configPath(options), words);
}

interface AcceptanceWords extends ConfigOption {
  readonly edge?: string;
  readonly origin?: string;
  readonly tokenFile?: string;
  readonly otherTokenFile?: string;
  readonly adminTokenFile?: string;
  readonly dev: boolean;
  readonly only: readonly string[];
  readonly list: boolean;
  readonly json: boolean;
  readonly takedownWithin: string;
}

program
  .command('acceptance')
  .description('try a running deployment from outside: which promises of its interface it keeps')
  .option('--edge <url>', 'the address of an edge')
  .option('--origin <url>', 'the address of an origin')
  .option('--token-file <file>', 'a token of a user; without one little can be tried')
  .option('--other-token-file <file>', 'a token of another user')
  .option('--admin-token-file <file>', 'a token of an admin; without one, what was uploaded stays for 15 minutes')
  .option('--dev', 'make tokens of the development Authentication Service, as the command `token` does', false)
  .option(
    '--only <pattern>',
    'only checks whose names contain this; `*` stands for anything; may be given again',
    gather,
    [],
  )
  .option('--list', 'print the checks, and try nothing', false)
  .option('--json', 'print the results as JSON', false)
  .option('--takedown-within <duration>', 'how soon edges must refuse what was taken down', '1s')
  .option('-c, --config <file>', 'with --dev: the configuration file', DEFAULT_CONFIG)
  .addHelpText('after', ACCEPTANCE_HELP)
  .action(async (options: AcceptanceWords) => {
    process.exitCode = await acceptance(options);
  });

program
  .command('reload')
  .description('have the running processes read their configuration again, and print what changes')
  .option('-c, --config <file>', 'configuration file', DEFAULT_CONFIG)
  .addOption(new Option('--as <process>', 'only this process').choices(Object.keys(ENTRIES)))
  .action(async (options: ConfigOption & { as?: EntryName }) => {
    const codes: number[] = [];
    for (const entry of await loadEntries(options.as)) {
      codes.push(await runChore(entry, 'reload', configPath(options), {}));
    }
    // One of the two may run on another machine.
    const answered = codes.filter((code) => code !== 2);
    process.exitCode = answered.length === 0 ? 2 : Math.max(...answered);
  });

program
  .command('secret')
  .description('make a secret of 256 bits, and print it or write it to a file that only this user can read')
  .argument('[file]', 'the file; one that exists is left as it is')
  .option('--webhook', 'one that signs webhooks: whsec_ and base64', false)
  .action(async (file: string | undefined, { webhook }: { webhook: boolean }) => {
    const secret = webhook ? newWebhookSecret() : newSecret();
    if (file === undefined) process.stdout.write(`${secret}\n`);
    else if (await writeSecret(file, secret)) process.stdout.write(`${file}: a new secret; name it as file:${file}\n`);
    else throw new Error(`${file} exists; remove it first, or choose another name`);
  });

program
  .command('completion')
  .description('print what makes a shell complete commands and options')
  .addArgument(new Argument('<shell>', 'the shell').choices(SHELLS))
  .action((shell: Shell) => {
    process.stdout.write(completionFor(shell, program));
  });

async function dev(path: string | undefined): Promise<number> {
  await prepareSecrets(DATA_FOLDER);
  const access = loadAccess(path);
  if (access === undefined) return 2;
  return await runDev({
    cliPath: fileURLToPath(import.meta.url),
    configPath: path,
    folder: DATA_FOLDER,
    openAuth() {
      const address = loopbackIssuer(access);
      return address === undefined ? undefined : openDevAuth({ ...address, folder: `${DATA_FOLDER}/auth` });
    },
    openPage(edge) {
      const [issuer, audience] = [access.issuers[0]?.issuer, access.audiences[0]];
      if (issuer === undefined || audience === undefined || loopbackIssuer(access) === undefined) return undefined;
      return openPage({
        edge,
        clock: systemClock,
        issueToken: (subject, admin) =>
          issueToken(
            `${DATA_FOLDER}/auth`,
            { subject, admin, expiresInMs: PAGE_TOKEN_MS, issuer, audience },
            systemClock,
          ),
      });
    },
    print: (text) => process.stdout.write(`${text}\n`),
  });
}

async function token(options: ConfigOption & { sub: string; admin: boolean; expires: string }): Promise<number> {
  const expiresInMs = parseDuration(options.expires);
  if (expiresInMs === undefined || expiresInMs <= 0) {
    process.stderr.write(`--expires ${options.expires}: must be a duration such as 90s, 15m, 1h or 7d\n`);
    return 2;
  }
  await prepareSecrets(DATA_FOLDER);
  const access = loadAccess(configPath(options));
  if (access === undefined) return 2;
  const [issuer, audience] = [access.issuers[0]?.issuer, access.audiences[0]];
  if (issuer === undefined || audience === undefined || loopbackIssuer(access) === undefined) {
    process.stderr.write(
      `access.issuers names ${issuer ?? 'no issuer'}, which is not the development Authentication Service: ask that service for tokens.\n`,
    );
    return 1;
  }
  const issued = await issueToken(
    `${DATA_FOLDER}/auth`,
    {
      subject: options.sub,
      admin: options.admin,
      expiresInMs,
      issuer,
      audience,
    },
    systemClock,
  );
  process.stdout.write(`${issued}\n`);
  return 0;
}

async function acceptance(options: AcceptanceWords): Promise<number> {
  const takedownWithinMs = parseDuration(options.takedownWithin);
  if (takedownWithinMs === undefined) {
    process.stderr.write(`--takedown-within ${options.takedownWithin}: must be a duration such as 1s or 500ms\n`);
    return 2;
  }
  const devTokens = options.dev ? await tokensForDev(configPath(options)) : undefined;
  if (options.dev && devTokens === undefined) return 2;
  const stopped = new AbortController();
  let signals = 0;
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      // npm sends the Ctrl-C of a terminal on, so one may come twice.
      if (signals === 0) process.stderr.write('stopping, and deleting what was uploaded\n');
      signals += 1;
      if (signals > 2) process.exit(130);
      stopped.abort();
    });
  }
  const { runAcceptance } = await import('./acceptance/command.js');
  const alive = keepAlive();
  try {
    return await runAcceptance(
      { ...options, takedownWithinMs },
      { clock: systemClock, devTokens, stopped: stopped.signal, ...printing(options) },
    );
  } finally {
    alive.release();
  }
}

/** Tokens of subjects that nobody else has, and whatever else a check wants to try. */
async function tokensForDev(path: string | undefined): Promise<Tokens | undefined> {
  await prepareSecrets(DATA_FOLDER);
  const access = loadAccess(path);
  const [issuer, audience] = [access?.issuers[0]?.issuer, access?.audiences[0]];
  if (access === undefined || issuer === undefined || audience === undefined) return undefined;
  const run = randomUUID();
  const make: NonNullable<Tokens['make']> = ({
    subject,
    admin = false,
    expiresInS = 3_600,
    beginsInS = 0,
    ...claims
  }) =>
    issueToken(
      `${DATA_FOLDER}/auth`,
      { issuer, audience, ...claims, subject, admin, expiresInMs: (expiresInS - beginsInS) * 1_000 },
      { now: () => systemClock.now() + beginsInS * 1_000 },
    );
  return {
    user: await make({ subject: `acceptance-${run}` }),
    other: await make({ subject: `acceptance-other-${run}` }),
    admin: await make({ subject: `acceptance-admin-${run}`, admin: true }),
    make,
  };
}

/** The file that was named, or the default one if it exists. */
function configPath(options: ConfigOption): string | undefined {
  const path = options.config ?? DEFAULT_CONFIG;
  return path === DEFAULT_CONFIG && !existsSync(path) ? undefined : path;
}

function printing(options: ConfigOption) {
  return {
    path: configPath(options),
    print: (text: string) => void process.stdout.write(text.endsWith('\n') ? text : `${text}\n`),
    printError: (line: string) => void process.stderr.write(`${line}\n`),
  };
}

/** One process, or all. */
function loadEntries(name: EntryName | undefined): Promise<ProcessEntry[]> {
  return Promise.all((name === undefined ? (Object.keys(ENTRIES) as EntryName[]) : [name]).map(loadEntry));
}

async function loadEntry(name: EntryName): Promise<ProcessEntry> {
  const module = (await import(new URL(ENTRIES[name], import.meta.url).href)) as { readonly entry: ProcessEntry };
  return module.entry;
}

function loadAccess(path: string | undefined): AccessConfig | undefined {
  const outcome = loadConfig(path, { access: accessSection });
  if (outcome.kind === 'loaded') return outcome.config.access;
  process.stderr.write(`${path ?? 'the built-in configuration'} cannot be used:\n`);
  process.stderr.write(`${formatFaults(outcome.faults).replace(/^/gm, '  ')}\n`);
  return undefined;
}

/** Host and port of the first issuer if it is on loopback: then it is the development service. */
function loopbackIssuer(access: AccessConfig): { readonly host: string; readonly port: number } | undefined {
  const issuer = access.issuers[0]?.issuer;
  if (issuer === undefined || !URL.canParse(issuer)) return undefined;
  const { hostname, port, protocol } = new URL(issuer);
  if (protocol !== 'http:' || !['127.0.0.1', 'localhost', '[::1]'].includes(hostname)) return undefined;
  return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port === '' ? 80 : port) };
}

// What this program writes is for its own user alone.
process.umask(0o077);
try {
  await program.parseAsync();
} catch (thrown) {
  // Such as a folder that cannot be written.
  process.stderr.write(`media-service: ${startFailure(thrown)}\n`);
  process.exitCode = 1;
}
