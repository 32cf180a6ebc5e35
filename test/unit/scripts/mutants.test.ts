import { stripTypeScriptTypes } from 'node:module';
import test from 'ava';
import { instrument, type Mutant, mutantsOf } from '../../../scripts/mutate/mutants.ts';
import { planFor } from '../../../scripts/mutate/plan.ts';

const source = `
import { join } from 'node:path';
export function choose(list: readonly number[], limit = 3): string[] {
  const found: string[] = [];
  // A comment that stays.
  for (const one of list) if (one < limit && one !== 1) found.push(String(one + 1));
  if (found.length > 9) throw new Error('Too many of them. Give fewer');
  return found as string[];
}
`;

/** What the function gives with one mutant awake; -1 for none. */
function outcomeOf(code: string, awake: number): unknown {
  const script = stripTypeScriptTypes(code.replace(/^import.*$/m, '').replace('export', ''));
  const run = new Function('globalThis', `${script}; return choose([0, 1, 2, 3]);`);
  return run({ __mutant: (number: number) => number === awake });
}

test('mutants sleep until they are chosen, and then change what their place says', (t) => {
  const mutants = mutantsOf('choose.ts', source);
  const code = instrument(source, [...mutants.entries()]);
  t.deepEqual(outcomeOf(code, -1), ['1', '3']);
  const changed = (original: string, replacement: RegExp) => {
    const number = mutants.findIndex((one) => one.original === original && replacement.test(one.replacement));
    t.not(number, -1, original);
    return outcomeOf(code, number);
  };
  t.deepEqual(changed('one < limit', /<=/), ['1', '3', '4']);
  t.deepEqual(changed('one !== 1', /===/), ['2']);
  t.deepEqual(changed('one + 1', /-/), ['-1', '1']);
  t.deepEqual(changed('3', /4/), ['1', '3', '4']);
  t.deepEqual(changed('found.push(String(one + 1));', /^$/), []);
  t.deepEqual(new Set(mutants.map((_, i) => JSON.stringify(outcomeOf(code, i)))).size > 5, true);
});

test('an "else" stays with its "if" where a statement before it may be left out', (t) => {
  const text =
    "export function choose() { const s = []; if (s.length) s.push('a'); else s.push('b'); return s; }";
  const mutants = mutantsOf('choose.ts', text);
  const code = instrument(text, [...mutants.entries()]);
  t.deepEqual(outcomeOf(code, -1), ['b']);
  const number = mutants.findIndex(({ original }) => original === "s.push('b');");
  t.deepEqual(outcomeOf(code, number), []);
});

test('modules, types, comments and messages are left alone', (t) => {
  const originals = mutantsOf('choose.ts', source).map(({ original }: Mutant) => original);
  for (const text of ["'node:path'", 'readonly number[]', "'Too many of them. Give fewer'"])
    t.false(originals.includes(text), text);
});

test('a mutant is tried by the tests that reach it: unit tests first, then those of its subject', (t) => {
  const reach = (seconds: number, reached: string[], passed = true) => ({
    digest: '',
    passed,
    seconds,
    reached,
  });
  const all = new Map([
    ['test/network/bridge.test.ts', reach(30, ['m'])],
    ['test/network/portmap.test.ts', reach(20, ['m'])],
    ['test/network/static.test.ts', reach(5, ['m'])],
    ['test/network/tuning.test.ts', reach(1, [])],
    ['test/unit/a.test.ts', reach(2, ['m'])],
    ['test/unit/b.test.ts', reach(1, ['m'], false)],
  ]);
  const files = planFor(all, 'm', 'lib/firewall/portmap-rules.ts', 25).map((run) => run.files);
  t.deepEqual(files, [
    ['test/unit/a.test.ts'],
    ['test/network/portmap.test.ts'],
    ['test/network/static.test.ts'],
  ]);
  const firewalld = new Map([...all, ['test/network/firewalld.test.ts', reach(21, ['m'])]]);
  const [, first] = planFor(firewalld, 'm', 'plugins/firewall.ts', 25);
  t.deepEqual(first?.files, ['test/network/firewalld.test.ts']);
  t.deepEqual(planFor(all, 'none', 'lib/ip.ts', 25), []);
  // What has passed is not run again, unless it has changed.
  const passed = { 'test/unit/a.test.ts': '', 'test/network/static.test.ts': 'before' };
  const rest = planFor(all, 'm', 'lib/firewall/portmap-rules.ts', 25, passed).map((run) => run.files);
  t.deepEqual(rest, [['test/network/static.test.ts'], ['test/network/portmap.test.ts']]);
});
