import test from 'ava';
import { argumentsOf, type OvsCall, vlansOf } from '../../../../plugins/ovs/settings.ts';
import { plugin } from '../../../../plugins/ovs.ts';

function configure(keys: object) {
  const base = { cniVersion: '1.1.0', name: 'n', type: 'ovs', bridge: 'br1' };
  return { ...base, ...plugin.config.decode({ ...base, ...keys }, '') } as never;
}

for (const [trunk, expected, ignored] of [
  [[{ minID: 1, maxID: 4095 }], Array.from({ length: 4095 }, (_, i) => i + 1), []],
  [[{ id: 0 }, { id: 5, minID: 4, maxID: 6 }], [0, 4, 5, 6], []],
  [[{ id: 7 }, { minID: 0, maxID: 9 }], [7], [/"trunk\[1\]" is .* have no effect/]],
  [[{ minID: 3 }, { id: 8, maxID: 9 }, {}], [8], [/"trunk\[0\]"/, /"trunk\[1\]"/]],
] as [object[], number[], RegExp[]][])
  test(`a trunk is read as ovs-cni reads it: ${JSON.stringify(trunk)}`, (t) => {
    const config = configure({ trunk });
    t.notThrows(() => plugin.validate!(config));
    t.deepEqual(vlansOf(config).trunks, expected);
    const told = plugin.ignores!(config);
    t.is(told.length, ignored.length);
    for (const [i, pattern] of ignored.entries()) t.regex(told[i]!, pattern);
  });

for (const [trunk, pattern] of [
  [[{ minID: 5, maxID: 2 }], /"trunk\[0\]" is the range 5 to 2/],
  [[{ minID: 0, maxID: 9 }], /"trunk" names no VLAN/],
  [[{ id: 4096 }], /"trunk\[0\]\.id" is 4096, but it must be between 0 and 4095/],
] as [object[], RegExp][])
  test(`a trunk is refused as ovs-cni refuses it: ${JSON.stringify(trunk)}`, (t) => {
    t.throws(() => plugin.validate!(configure({ trunk })), { message: pattern });
  });

test('what is no text in "args.cni" is of other plugins', (t) => {
  const argumentsFor = (cni: object) =>
    argumentsOf({ config: configure({ args: { cni } }), args: () => ({}) } as unknown as OvsCall);
  const none = { mac: undefined, ovnPort: undefined, podUid: '' };
  t.deepEqual(argumentsFor({ mac: ['02:00:00:00:00:01'], ovnPort: 7 }), none);
  t.deepEqual(argumentsFor({ mac: '', ovnPort: '' }), none);
  const given = { mac: '02:00:00:00:00:01', ovnPort: 'p' };
  t.deepEqual(argumentsFor(given), { ...given, podUid: '' });
});
