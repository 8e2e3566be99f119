/**
 * Loads test files again and again in one process, each time with one module as it stands on disk now. What that module
 * reaches through imports is evaluated anew, and so is what uses tap; every other module is evaluated once and shared.
 * Needs `--experimental-vm-modules`.
 */
import { readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { type Module, SourceTextModule, SyntheticModule } from 'node:vm';

export type Modules = {
  /** Evaluates `entry`. `changed` is read from the disk anew; paths are relative to the working directory. */
  run(entry: string, changed: string, tap: Readonly<Record<string, unknown>>): Promise<void>;
};

const IMPORTS = /^\s*(?:import|export)\b[^;]*?from\s*['"]([^'"]+)['"]|^\s*import\s*['"]([^'"]+)['"]/gm;

export function createModules(): Modules {
  const root = process.cwd();
  const texts = new Map<string, string>();
  const packages = new Map<string, Promise<Module>>();
  const shared = new Map<string, Module>();
  const reached = new Map<string, ReadonlySet<string>>();

  function textOf(path: string): string {
    const text = texts.get(path) ?? readFileSync(path, 'utf8');
    texts.set(path, text);
    return text;
  }

  /** The file itself and all that it imports, through others too; packages by their names. */
  function reachOf(path: string): ReadonlySet<string> {
    const known = reached.get(path);
    if (known !== undefined) return known;
    const all = new Set([path]);
    for (const each of all) {
      if (!each.endsWith('.js')) continue;
      for (const match of textOf(each).matchAll(IMPORTS)) all.add(resolved(match[1] ?? match[2] ?? '', each));
    }
    reached.set(path, all);
    return all;
  }

  function packageOf(specifier: string): Promise<Module> {
    const known = packages.get(specifier) ?? evaluated(() => import(specifier) as Promise<Record<string, unknown>>);
    packages.set(specifier, known);
    return known;
  }

  return {
    async run(entry, changed, tap) {
      const fresh = new Map<string, Module>();
      const tapModule = await evaluated(async () => tap);

      function moduleOf(path: string): Module {
        const reach = reachOf(path);
        const modules = path === entry || reach.has(changed) || reach.has('tap') ? fresh : shared;
        const known = modules.get(path);
        if (known !== undefined) return known;
        const url = pathToFileURL(join(root, path)).href;
        const module = new SourceTextModule(path === changed ? readFileSync(path, 'utf8') : textOf(path), {
          identifier: url,
          initializeImportMeta(meta) {
            meta.url = url;
            meta.filename = join(root, path);
            meta.dirname = dirname(meta.filename);
            meta.resolve = (name: string) => new URL(name, url).href;
          },
          importModuleDynamically: (name: string) => imported(name, path),
        });
        modules.set(path, module);
        return module;
      }

      async function found(specifier: string, from: string): Promise<Module> {
        const name = resolved(specifier, from);
        if (name === 'tap') return tapModule;
        return name.endsWith('.js') && specifier !== name ? moduleOf(name) : packageOf(name);
      }

      const link = (specifier: string, from: Module): Promise<Module> =>
        found(specifier, relative(root, fileURLToPath(from.identifier)));

      async function imported(specifier: string, from: string): Promise<Module> {
        const module = await found(specifier, from);
        if (module.status === 'unlinked') await module.link(link);
        await module.evaluate();
        return module;
      }

      const module = moduleOf(entry);
      await module.link(link);
      await module.evaluate();
    },
  };

  /** A file by its path from the working directory, a package by its name. */
  function resolved(specifier: string, from: string): string {
    if (specifier.startsWith('.')) return normalize(join(dirname(from), specifier));
    return specifier.startsWith('file:') ? relative(root, fileURLToPath(specifier)) : specifier;
  }
}

/** A module that exports what was loaded in the usual way. */
async function evaluated(load: () => Promise<Readonly<Record<string, unknown>>>): Promise<Module> {
  const values = await load();
  const names = Object.keys(values);
  const module = new SyntheticModule(names, () => {
    for (const name of names) module.setExport(name, values[name]);
  });
  await module.link(() => {
    throw new Error('it imports nothing');
  });
  await module.evaluate();
  return module;
}
