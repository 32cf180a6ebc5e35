import test from 'ava';
import { resolveRangeSets } from '../../../ipam/host-local/ranges.ts';
import { countTaken, fullSets, type Reservation } from '../../../ipam/host-local/reservations.ts';
import { Address, Prefix } from '../../../lib/ip.ts';

const [set] = resolveRangeSets([[{ subnet: Prefix.parse('10.1.0.0/29') }]]);

function reservation(address: string, state: Reservation['state'] = 'held'): Reservation {
  return { address: Address.parse(address), owner: undefined, problem: undefined, state };
}

test('an address counts as taken if it is of the set, is not its gateway, and ADD would not take it over', (t) => {
  const taken = (...reserved: Reservation[]) => countTaken(set!, reserved);
  t.is(taken(), 0);
  for (const state of ['held', 'torn', 'unreadable'] as const)
    t.is(taken(reservation('10.1.0.2', state)), 1, state);
  t.is(taken(reservation('10.1.0.2', 'empty')), 0);
  t.is(taken(reservation('10.1.0.1')), 0, 'the gateway');
  t.is(taken(reservation('10.2.0.2')), 0, 'an address of another set');
  t.is(taken(reservation('10.1.0.2'), reservation('10.1.0.6'), reservation('10.9.0.1')), 2);
});

test('a set is full when all but its gateway is taken', (t) => {
  const all = [2, 3, 4, 5, 6].map((i) => reservation(`10.1.0.${i}`));
  t.deepEqual(fullSets([set!], all), [set]);
  t.deepEqual(fullSets([set!], all.slice(1)), []);
  t.deepEqual(fullSets([set!], [...all.slice(1), reservation('10.1.0.1'), reservation('10.9.0.1')]), []);
});
