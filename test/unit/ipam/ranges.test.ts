import test from 'ava';
import {
  candidates,
  capacity,
  type RangeSet,
  resolveRangeSets,
  setContains,
} from '../../../ipam/host-local/ranges.ts';
import { Address, Prefix } from '../../../lib/ip.ts';

const range = (subnet: string, rangeStart?: string, rangeEnd?: string, gateway?: string) => ({
  subnet: Prefix.parse(subnet),
  ...(rangeStart && { rangeStart: Address.parse(rangeStart) }),
  ...(rangeEnd && { rangeEnd: Address.parse(rangeEnd) }),
  ...(gateway && { gateway: Address.parse(gateway) }),
});
const set = (...ranges: ReturnType<typeof range>[]): RangeSet => resolveRangeSets([ranges])[0]!;
const walk = (ranges: RangeSet, after?: string) =>
  [...candidates(ranges, after ? Address.parse(after) : undefined)].map(({ address }) => `${address}`);

test('fills in gateway, start and end', (t) => {
  const [four] = set(range('10.1.0.0/24'));
  t.deepEqual([`${four!.gateway}`, `${four!.start}`, `${four!.end}`], ['10.1.0.1', '10.1.0.1', '10.1.0.254']);
  const [six] = set(range('fd00::/126'));
  t.deepEqual([`${six!.gateway}`, `${six!.start}`, `${six!.end}`], ['fd00::1', 'fd00::1', 'fd00::3']);
});

test('walks every address once, wherever it begins, and never the gateway', (t) => {
  const pool = set(range('10.1.0.0/29'), range('10.2.0.0/29', '10.2.0.3', '10.2.0.5'));
  const all = [
    '10.1.0.2',
    '10.1.0.3',
    '10.1.0.4',
    '10.1.0.5',
    '10.1.0.6',
    '10.2.0.3',
    '10.2.0.4',
    '10.2.0.5',
  ];
  t.deepEqual(walk(pool), all);
  for (const [i, after] of all.entries())
    t.deepEqual(walk(pool, after), [...all.slice(i + 1), ...all.slice(0, i + 1)], after);
  t.deepEqual(walk(pool, '10.9.0.1'), all, 'a cursor from elsewhere');
  t.deepEqual(walk(pool, '10.1.0.1'), all, 'a cursor on the gateway');
  t.is(capacity(pool), 8n);
});

test('a gateway outside of the range takes nothing from it', (t) => {
  const pool = set(range('10.1.0.0/29', '10.1.0.2', '10.1.0.3', '10.1.0.6'));
  t.deepEqual(walk(pool), ['10.1.0.2', '10.1.0.3']);
  t.is(capacity(pool), 2n);
  t.false(setContains(pool, Address.parse('10.1.0.4')));
});

test('says what is wrong with which range', (t) => {
  const message = (...sets: ReturnType<typeof range>[][]) =>
    t.throws(() => resolveRangeSets(sets))?.message ?? '';
  t.regex(message([range('10.1.0.5/24')]), /host bits\. Write it as "10\.1\.0\.0\/24"/);
  t.regex(message([range('10.1.0.0/31')]), /too small/);
  t.regex(message([range('10.1.0.0/24', '10.2.0.1')]), /"rangeStart" .* not in "10\.1\.0\.0\/24"/);
  t.regex(message([range('10.1.0.0/24', '10.1.0.9', '10.1.0.3')]), /lies behind its "rangeEnd"/);
  t.regex(message([range('10.1.0.0/24'), range('10.1.0.128/25')]), /overlap/);
  t.regex(message([range('10.1.0.0/24')], [range('10.1.0.0/16')]), /two range sets overlap/);
  t.regex(message([range('10.1.0.0/24'), range('fd00::/64')]), /mixes IPv4 and IPv6/);
  t.regex(message([]), /empty/);
  t.regex(
    message([range('10.1.0.0/24', '10.1.0.1', '10.1.0.1')]),
    /"ipam\.ranges\[0\]" has no address but that of a gateway \(10\.1\.0\.1\)/,
  );
  t.regex(message([{} as never]), /no "subnet"/);
});
