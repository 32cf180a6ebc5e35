import test from 'ava';
import { isSameRule, option, parseRules, prefixWords, renderRule } from '../../../lib/firewall/rules.ts';
import { Prefix } from '../../../lib/ip.ts';

test('a rule is read as it was written', (t) => {
  const words = ['-s', '10.1.0.5/32', '-m', 'comment', '--comment', 'name: "net" id: "a\\b"', '-j', 'CNI-1'];
  const rule = { chain: 'POSTROUTING', words };
  t.deepEqual(parseRules(`-P POSTROUTING ACCEPT\n${renderRule('-A', rule)}\n`), [rule]);
});

test('a word that could begin a command of its own is refused, others are quoted', (t) => {
  const rendered = (word: string) => renderRule('-A', { chain: 'C', words: [word] });
  t.throws(() => rendered('a\nCOMMIT'), { message: /line break/ });
  t.is(rendered('10.0.0.0/8'), '-A C 10.0.0.0/8');
  t.is(rendered('a "b"'), '-A C "a \\"b\\""');
});

test('rules are compared by chain and words, whatever the order', (t) => {
  const rule = { chain: 'A', words: ['-s', '10.0.0.0/8', '-j', 'B'] };
  t.true(isSameRule(rule, { chain: 'A', words: ['-j', 'B', '-s', '10.0.0.0/8'] }));
  t.false(isSameRule(rule, { chain: 'C', words: rule.words }));
  t.false(isSameRule(rule, { chain: 'A', words: ['-j', 'B'] }));
  const between = (text: string) => ({ chain: 'A', words: text.split(' ') });
  t.true(isSameRule(between('-i a ! -o b'), between('! -o b -i a')));
  t.false(isSameRule(between('-i a ! -o b'), between('! -i a -o b')));
  t.false(isSameRule(between('-i a -o b'), between('-i b -o a')));
  t.is(option(rule, '-j'), 'B');
  t.is(option(rule, '-d'), undefined);
});

test('a match for every address is none', (t) => {
  t.deepEqual(prefixWords('-s', Prefix.parse('0.0.0.0/0')), []);
  t.deepEqual(prefixWords('-d', Prefix.parse('10.1.2.3/16')), ['-d', '10.1.0.0/16']);
});
