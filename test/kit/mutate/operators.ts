/**
 * The wrong lines that a mutation run puts in, one at a time: for a module's text, every edit that these rules allow.
 * They follow the mistakes that are made and missed: an effect that is left out or not waited for, a condition that always
 * or never holds, a bound that is off by one, a field that is not sent. Messages and log lines are left alone.
 *
 * The compiler that builds the project has no API for programs, so its forerunner is installed beside it for this file.
 */
import ts from 'typescript-6';

export type Mutant = {
  /** Offsets in the module's text, in UTF-16 code units. */
  readonly start: number;
  readonly end: number;
  readonly replacement: string;
  readonly rule: string;
};

type Edit = { readonly node: ts.Node; readonly replacement: string; readonly rule: string };

const BINARY: ReadonlyMap<ts.SyntaxKind, string> = new Map([
  [ts.SyntaxKind.LessThanToken, '<='],
  [ts.SyntaxKind.LessThanEqualsToken, '<'],
  [ts.SyntaxKind.GreaterThanToken, '>='],
  [ts.SyntaxKind.GreaterThanEqualsToken, '>'],
  [ts.SyntaxKind.EqualsEqualsEqualsToken, '!=='],
  [ts.SyntaxKind.ExclamationEqualsEqualsToken, '==='],
  [ts.SyntaxKind.MinusToken, '+'],
  [ts.SyntaxKind.AsteriskToken, '/'],
  [ts.SyntaxKind.PlusEqualsToken, '-='],
  [ts.SyntaxKind.MinusEqualsToken, '+='],
]);
const EITHER = new Set([
  ts.SyntaxKind.AmpersandAmpersandToken,
  ts.SyntaxKind.BarBarToken,
  ts.SyntaxKind.QuestionQuestionToken,
]);
const OPPOSITES: ReadonlyMap<string, string> = new Map([
  ['min', 'max'],
  ['max', 'min'],
  ['some', 'every'],
  ['every', 'some'],
]);
/** In the place of a member of an object literal. */
const NOTHING = '...{}';
const LOGS = /(^|[.#])(log|logger|audit)\??\.(debug|info|warn|error)\??\(|^console\./;

export function mutantsOf(text: string, name: string): readonly Mutant[] {
  const source = ts.createSourceFile(name, text, ts.ScriptTarget.Latest, true, ts.ScriptKind.JS);
  const mutants: Mutant[] = [];
  const visit = (node: ts.Node): void => {
    if (isLeftAlone(node, source)) return;
    for (const { node: target, replacement, rule } of editsOf(node, source)) {
      mutants.push({ start: target.getStart(source), end: target.end, replacement, rule });
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return mutants;
}

/** What no test should have to notice: imports, messages of errors, log lines. */
function isLeftAlone(node: ts.Node, source: ts.SourceFile): boolean {
  if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return true;
  if (ts.isThrowStatement(node)) return true;
  return ts.isExpressionStatement(node) && LOGS.test(node.getText(source));
}

function editsOf(node: ts.Node, source: ts.SourceFile): readonly Edit[] {
  if (ts.isExpressionStatement(node)) return ofStatement(node, source);
  if (ts.isIfStatement(node)) return ofCondition(node.expression, ['true', 'false']);
  if (ts.isConditionalExpression(node)) return ofCondition(node.condition, ['true', 'false']);
  if (ts.isWhileStatement(node)) return ofCondition(node.expression, ['false']);
  if (ts.isBinaryExpression(node)) return ofBinary(node, source);
  if (ts.isTryStatement(node)) return ofFinally(node);
  if (ts.isNumericLiteral(node)) return ofNumber(node, source);
  if (ts.isReturnStatement(node)) return ofReturn(node);
  if (ts.isArrayLiteralExpression(node)) return ofList(node);
  if (ts.isCallExpression(node)) return ofCall(node);
  if (ts.isPropertyAssignment(node) && ts.isStringLiteral(node.name))
    return [{ node, replacement: NOTHING, rule: 'no field' }];
  if (ts.isSpreadAssignment(node)) return [{ node, replacement: NOTHING, rule: 'no spread' }];
  if (ts.isPrefixUnaryExpression(node) && node.operator === ts.SyntaxKind.ExclamationToken) {
    return isCondition(node) ? [] : [{ node, replacement: node.operand.getText(source), rule: 'not negated' }];
  }
  return [];
}

function ofStatement(node: ts.ExpressionStatement, source: ts.SourceFile): readonly Edit[] {
  const { expression } = node;
  // Without it the module does not load, or a class cannot be built.
  if (ts.isCallExpression(expression) && expression.expression.kind === ts.SyntaxKind.SuperKeyword) return [];
  if (ts.isStringLiteral(expression)) return [];
  const removed: Edit = { node, replacement: ';', rule: 'left out' };
  if (!ts.isAwaitExpression(expression)) return [removed];
  const goesOn = `void ${expression.expression.getText(source)};`;
  return [removed, { node, replacement: goesOn, rule: 'not waited for' }];
}

function ofCondition(condition: ts.Expression, values: readonly string[]): readonly Edit[] {
  return values.map((replacement) => ({ node: condition, replacement, rule: `condition is ${replacement}` }));
}

function ofBinary(node: ts.BinaryExpression, source: ts.SourceFile): readonly Edit[] {
  const operator = node.operatorToken;
  if (EITHER.has(operator.kind)) {
    const sides = isFormal(node) ? [node.right] : [node.left, node.right];
    return sides.map((side) => ({
      node,
      replacement: side.getText(source),
      rule: `one side of ${operator.getText(source)}`,
    }));
  }
  const isEquality =
    operator.kind === ts.SyntaxKind.EqualsEqualsEqualsToken ||
    operator.kind === ts.SyntaxKind.ExclamationEqualsEqualsToken;
  // Both outcomes of a whole condition are tried already.
  if (isEquality && isCondition(node)) return [];
  const other = BINARY.get(operator.kind) ?? (isNumericSum(node) ? '-' : undefined);
  return other === undefined ? [] : [{ node: operator, replacement: other, rule: 'another operator' }];
}

/** `x ?? 0` and the like mostly satisfy the compiler where `x` is always there. */
function isFormal(node: ts.BinaryExpression): boolean {
  if (node.operatorToken.kind !== ts.SyntaxKind.QuestionQuestionToken) return false;
  return ts.isLiteralExpression(node.right) || /^(null|undefined|false|\[\]|\{\})$/.test(node.right.getText());
}

function isNumericSum(node: ts.BinaryExpression): boolean {
  return (
    node.operatorToken.kind === ts.SyntaxKind.PlusToken &&
    (ts.isNumericLiteral(node.left) || ts.isNumericLiteral(node.right))
  );
}

function ofFinally(node: ts.TryStatement): readonly Edit[] {
  const block = node.finallyBlock;
  return block === undefined || block.statements.length < 2
    ? []
    : [{ node: block, replacement: '{}', rule: 'nothing released' }];
}

/** A hexadecimal number of 32 bits is a pattern of bits, such as a hash multiplies with: its neighbour is as good. */
const PATTERN = /^0x[\da-f]{8}$/i;

function ofNumber(node: ts.NumericLiteral, source: ts.SourceFile): readonly Edit[] {
  if (PATTERN.test(node.getText(source))) return [];
  const value = Number(node.text.replaceAll('_', ''));
  if (!Number.isSafeInteger(value) || isFurtherFactor(node)) return [];
  if (value > 1 && isTuned(node)) return [{ node, replacement: String(value * 100), rule: 'a hundred times as much' }];
  return [{ node, replacement: String(value + 1), rule: 'one more' }];
}

/**
 * The number of a named constant (`RETRY_MS = 250`) or its first factor. Nothing is wrong with 251; that nothing bounds
 * the wait at all is what a test should notice. The other factors are left alone.
 */
function isTuned(node: ts.NumericLiteral): boolean {
  let whole: ts.Node = node;
  while (ts.isBinaryExpression(whole.parent) && whole.parent.left === whole) whole = whole.parent;
  return isConstantValue(whole);
}

function isFurtherFactor(node: ts.NumericLiteral): boolean {
  let whole: ts.Node = node;
  while (ts.isBinaryExpression(whole.parent)) whole = whole.parent;
  return isConstantValue(whole) && !isTuned(node);
}

function isConstantValue(node: ts.Node): boolean {
  const { parent } = node;
  return (
    ts.isVariableDeclaration(parent) && parent.initializer === node && /^[A-Z][A-Z0-9_]+$/.test(parent.name.getText())
  );
}

function ofReturn(node: ts.ReturnStatement): readonly Edit[] {
  const kind = node.expression?.kind;
  if (kind === ts.SyntaxKind.TrueKeyword) return [{ node, replacement: 'return false;', rule: 'returns false' }];
  if (kind === ts.SyntaxKind.FalseKeyword) return [{ node, replacement: 'return true;', rule: 'returns true' }];
  return [];
}

/** Each name out of a list of names. */
function ofList(node: ts.ArrayLiteralExpression): readonly Edit[] {
  if (node.elements.length < 2 || !node.elements.every((one) => ts.isStringLiteral(one))) return [];
  return node.elements.map((one) => ({ node: one, replacement: "''", rule: 'not in the list' }));
}

function ofCall(node: ts.CallExpression): readonly Edit[] {
  if (!ts.isPropertyAccessExpression(node.expression)) return [];
  const { name } = node.expression;
  const opposite = OPPOSITES.get(name.text);
  return opposite === undefined
    ? []
    : [{ node: name, replacement: opposite, rule: `${opposite} in place of ${name.text}` }];
}

function isCondition(node: ts.Node): boolean {
  const { parent } = node;
  if (ts.isIfStatement(parent) || ts.isWhileStatement(parent)) return parent.expression === node;
  return ts.isConditionalExpression(parent) && parent.condition === node;
}
