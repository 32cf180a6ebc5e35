/**
 * Small faults of the kind that a tired developer makes, found in source text: an operator that is off by
 * one, a condition that is always true, a step left out.
 */

import { stripTypeScriptTypes } from 'node:module';
import { type AnyNode, type Expression, parse } from 'acorn';
import { fullAncestor } from 'acorn-walk';

/** One fault. */
export interface Mutant {
  readonly file: string;
  readonly line: number;
  readonly kind: 'expression' | 'statement';
  /** Where the expression or statement is. */
  readonly start: number;
  readonly end: number;
  readonly original: string;
  /** What replaces it; "" for a statement that is left out. */
  readonly replacement: string;
}

/** Tells mutants apart, even after lines have moved. */
export function keyOf({ file, original, replacement, line }: Mutant, text: string): string {
  return `${file}: ${text.split('\n')[line - 1]!.trim()}: ${original} -> ${replacement}`;
}

/** Operators, and what replaces them. */
const swaps = new Map(
  Object.entries({
    '<': '<=',
    '<=': '<',
    '>': '>=',
    '>=': '>',
    '===': '!==',
    '!==': '===',
    '+': '-',
    '-': '+',
    '*': '/',
    '/': '*',
    '&': '|',
    '|': '&',
    '<<': '>>',
    '>>': '<<',
    '>>>': '<<',
    '&&': '||',
    '||': '&&',
    '??': '&&',
  }),
);

/** Methods, and what replaces them; "" where the call is left out. */
const methods = new Map(
  Object.entries({
    some: 'every',
    every: 'some',
    startsWith: 'endsWith',
    endsWith: 'startsWith',
    min: 'max',
    max: 'min',
    filter: '',
    slice: '',
    sort: '',
    toSorted: '',
    toReversed: '',
    toLowerCase: '',
    trim: '',
  }),
);

/** Finds every mutant of a file. Texts for people are left alone: changing them is not a fault. */
export function mutantsOf(file: string, text: string): Mutant[] {
  const found: Mutant[] = [];
  // The types become blanks, so that positions stay the same.
  const tree = parse(stripTypeScriptTypes(text, { mode: 'strip' }), {
    ecmaVersion: 'latest',
    sourceType: 'module',
  });
  const lineAt = (position: number) => text.slice(0, position).split('\n').length;
  fullAncestor(tree, (one, _state, above) => {
    const node = one as AnyNode;
    const ancestors = above.slice(0, -1) as AnyNode[];
    const { start, end } = node;
    if (isForPeople(ancestors, text) || !isReplaceable(node, ancestors.at(-1))) return;
    for (const replacement of replacementsOf(node, (part) => text.slice(part.start, part.end))) {
      const kind = node.type === 'ExpressionStatement' ? 'statement' : 'expression';
      found.push({
        file,
        line: lineAt(start),
        kind,
        start,
        end,
        original: text.slice(start, end),
        replacement,
      });
    }
  });
  return found;
}

/** What may replace an expression or statement. @param textOf source text of a part. */
function replacementsOf(node: AnyNode, textOf: (part: { start: number; end: number }) => string): string[] {
  switch (node.type) {
    case 'BinaryExpression':
    case 'LogicalExpression': {
      const { left, right, operator } = node;
      const swap = swaps.get(operator);
      const isText = operator === '+' && [left, right].some(isString);
      return swap && !isText ? [`(${textOf(left)}) ${swap} (${textOf(right)})`] : [];
    }
    case 'ConditionalExpression':
      return [`(${textOf(node.test)}) ? (${textOf(node.alternate)}) : (${textOf(node.consequent)})`];
    case 'UnaryExpression':
      return node.operator === '!' ? [`Boolean(${textOf(node.argument)})`] : [];
    case 'Literal':
      return isSentence(textOf(node)) ? [] : replacementsOfLiteral(node.value, node.bigint);
    case 'TemplateLiteral':
      return isSentence(textOf(node)) ? [] : ["''"];
    case 'ArrayExpression':
      return node.elements.length > 0 ? ['[]'] : [];
    case 'CallExpression':
      return replacementsOfCall(node.callee, node.arguments, textOf);
    case 'ChainExpression':
      return [
        textOf(node)
          .replace(/\?\.(?=[[(])/, '')
          .replace('?.', '.'),
      ];
    case 'ExpressionStatement':
      return ['CallExpression', 'AwaitExpression', 'AssignmentExpression', 'ChainExpression'].includes(
        node.expression.type,
      )
        ? ['']
        : [];
    default:
      return [];
  }
}

function replacementsOfLiteral(value: unknown, bigint: string | null | undefined): string[] {
  if (bigint) return [`${BigInt(bigint) + 1n}n`];
  if (typeof value === 'boolean') return [`${!value}`];
  if (typeof value === 'number') return [`${value + 1}`];
  return typeof value === 'string' && value !== '' ? ["''"] : [];
}

function replacementsOfCall(
  callee: AnyNode,
  args: readonly AnyNode[],
  textOf: (part: { start: number; end: number }) => string,
): string[] {
  if (callee.type !== 'MemberExpression' || callee.property.type !== 'Identifier') return [];
  const swap = methods.get(callee.property.name);
  if (swap === undefined || callee.optional) return [];
  const object = `(${textOf(callee.object)})`;
  return [swap === '' ? object : `${object}.${swap}(${args.map(textOf).join(', ')})`];
}

function isString(node: Expression | { type: 'PrivateIdentifier' }): boolean {
  return (node.type === 'Literal' && typeof node.value === 'string') || node.type === 'TemplateLiteral';
}

/** Whether other code may replace a node: if it is neither a name, nor a target, nor a part of a chain. */
function isReplaceable(node: AnyNode, parent: AnyNode | undefined): boolean {
  switch (parent?.type) {
    case 'Property':
    case 'PropertyDefinition':
    case 'MethodDefinition':
      return parent.key !== node || parent.computed;
    case 'CallExpression':
      return parent.callee !== node;
    case 'ImportDeclaration':
    case 'ImportExpression':
    case 'ImportSpecifier':
    case 'ExportNamedDeclaration':
    case 'ExportSpecifier':
    case 'ExportAllDeclaration':
    case 'TaggedTemplateExpression':
    case 'ChainExpression':
      return false;
    case 'MemberExpression':
      return parent.object !== node || node.type !== 'CallExpression' || !parent.optional;
    default:
      return true;
  }
}

/** Whether a text is for people: it has words separated by blanks. */
function isSentence(text: string): boolean {
  return /[a-z]{2} [a-z"$]/.test(text);
}

/** Whether a node is part of a message or a description. */
function isForPeople(ancestors: readonly AnyNode[], text: string): boolean {
  return ancestors.some((node) => {
    if (node.type === 'NewExpression' || node.type === 'CallExpression')
      return /Error$|warn$|^note$|\.write$/.test(text.slice(node.callee.start, node.callee.end));
    if (node.type === 'Property' && node.key.type === 'Identifier')
      return ['description', 'summary', 'explain', 'action'].includes(node.key.name);
    return node.type === 'FunctionDeclaration' && /^explain|^describe/.test(node.id?.name ?? '');
  });
}

/**
 * Puts mutants into the text of their file, each asleep until it is chosen.
 * @param mutants with their numbers. @returns TypeScript.
 */
export function instrument(text: string, mutants: readonly (readonly [number: number, Mutant])[]): string {
  const insertions: { at: number; order: number; code: string }[] = [];
  for (const [number, { kind, start, end, replacement }] of mutants) {
    const isChosen = `globalThis.__mutant?.(${number})`;
    const length = end - start;
    // A block of its own keeps an "else" that follows attached to its "if".
    const [before, after] =
      kind === 'statement' ? [`{ if (!${isChosen}) `, ' }'] : [`(${isChosen} ? (${replacement}) : (`, '))'];
    // At the same position, endings come before beginnings, and the longer mutant encloses the shorter.
    insertions.push({ at: start, order: 1 / length, code: before });
    insertions.push({ at: end, order: length - 1e9, code: after });
  }
  let result = '';
  let done = 0;
  for (const { at, code } of insertions.toSorted((a, b) => a.at - b.at || a.order - b.order)) {
    result += text.slice(done, at) + code;
    done = at;
  }
  return result + text.slice(done);
}
