/** What the plugins of a network that a pod asks for are run with. */

import test from 'ava';
import { asDelegates } from '../../../lib/networks/choice.ts';
import { networkFrom } from '../../../lib/networks/conflist.ts';
import { parseSelections } from '../../../lib/networks/selection.ts';

const call = {
  ...{ ifname: 'eth0', config: {} },
  context: { invocation: { args: 'K8S_POD_NAME=web;IP=10.1.0.1;MAC=02:00:00:00:00:01' } },
} as never;

for (const [what, capabilities, keys, expected] of [
  ['addresses go to CNI_ARGS', {}, { ips: ['10.1.0.9'] }, ';IP=10.1.0.9'],
  [
    'addresses go to CNI_ARGS beside the capabilities',
    { ips: true, mac: true },
    { ips: ['10.1.0.9'], mac: '02:00:00:00:00:09' },
    ';IP=10.1.0.9;MAC=02:00:00:00:00:09',
  ],
  [
    'several addresses go to the capability alone',
    { ips: true },
    { ips: ['10.1.0.9', 'fd00::9'], mac: '02:00:00:00:00:09' },
    ';MAC=02:00:00:00:00:09',
  ],
  [
    'several addresses go to CNI_ARGS where there is no capability',
    {},
    { ips: ['10.1.0.9', 'fd00::9'] },
    ';IP=10.1.0.9,fd00::9',
  ],
] as const)
  test(`${what}`, (t) => {
    const config = { name: 'storage', type: 'macvlan', capabilities };
    const network = networkFrom(config, Buffer.from(''), '');
    const [selection] = parseSelections(JSON.stringify([{ name: 'storage', ...keys }]), 'Annotation');
    const choices = [{ network }, { network, selection: selection! }];
    const [first, further] = asDelegates(call, choices, () => ['eth0', 'net1']);
    t.is(first!.args, 'K8S_POD_NAME=web;IP=10.1.0.1;MAC=02:00:00:00:00:01');
    t.is(further!.args, `IgnoreUnknown=1;K8S_POD_NAME=web${expected}`);
    t.deepEqual(further!.capabilityArgs, keys);
  });

test('the network with the interface of the runtime is the first, wherever the pod names it', (t) => {
  const network = networkFrom({ name: 'storage', type: 'macvlan' }, Buffer.from(''), '');
  const choices = ['a', 'b', 'c'].map((label) => ({ network, label }));
  const delegates = asDelegates(call, choices, () => ['eth4', 'eth0', 'eth1']);
  t.deepEqual(
    delegates.map(({ label, ifname, args }) => [label, ifname, args.includes('IP=')]),
    [
      ['b', 'eth0', true],
      ['a', 'eth4', false],
      ['c', 'eth1', false],
    ],
  );
});

test('without networks there are no delegates', (t) => {
  t.deepEqual(
    asDelegates(call, [], () => []),
    [],
  );
});
