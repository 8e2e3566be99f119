/** YAML as config.yaml uses it. */
import { isMap, isNode, isScalar, isSeq, LineCounter, parseDocument, stringify } from 'yaml';

export type YamlRead =
  | { readonly kind: 'read'; readonly value: unknown }
  | { readonly kind: 'faulty'; readonly errors: readonly YamlError[] };

export interface YamlError {
  readonly message: string;
  /** The line of the text that cannot be read, where the parser shows one. */
  readonly line?: string;
}

export function readYaml(text: string): YamlRead {
  const document = parseDocument(text, { prettyErrors: true });
  if (document.errors.length > 0)
    return { kind: 'faulty', errors: document.errors.map(({ message }) => errorOf(message)) };
  return { kind: 'read', value: document.toJS({ maxAliasCount: 10 }) };
}

export interface Place {
  /** Both count from 1. */
  readonly line: number;
  readonly column: number;
}

/** Where a key stands in a text. If it is not there, where the nearest group around it begins. */
export function placesIn(text: string): (path: readonly string[]) => Place | undefined {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  return (path) => {
    let node: unknown = document.contents;
    let at: unknown;
    for (const key of path) {
      if (isMap(node)) {
        const pair = node.items.find((each) => isScalar(each.key) && String(each.key.value) === key);
        if (pair === undefined) break;
        at = pair.key;
        node = pair.value;
      } else if (isSeq(node)) {
        node = node.items[Number(key)];
        at = node;
      } else break;
    }
    if (!isNode(at) || at.range === undefined || at.range === null) return undefined;
    const { line, col } = lines.linePos(at.range[0]);
    return { line, column: col };
  };
}

export function writeYaml(value: unknown, lineWidth: number): string {
  return stringify(value, { lineWidth, flowCollectionPadding: true });
}

/** The parser's first line, and the line of the text that it points at. */
function errorOf(text: string): YamlError {
  const [message = text, ...shown] = text.split('\n').map((line) => line.trim());
  const line = shown.find((each) => each !== '' && !/^\^+$/.test(each));
  return line === undefined ? { message } : { message, line };
}
