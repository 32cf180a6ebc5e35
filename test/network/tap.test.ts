import { join } from 'node:path';
import test from 'ava';
import { Attachment, attach } from '../support/chain.ts';
import { makeHost } from '../support/host.ts';
import { addresses, ipJson, link } from '../support/observe.ts';
import { changed } from '../support/outside.ts';
import { addEnvironment, suites } from '../support/plugin.ts';

const name = '65-tap.conflist';

test('the interface has its owner, group, queues, address and MAC address, and goes', async (t) => {
  const host = await makeHost(t);
  // IDs without a name on any machine: ip prints the name where there is one.
  const change = { mac: '0a:58:0a:61:00:07', mtu: 1400, owner: 70107, group: 70108 };
  const one = await attach(host, changed(name, change));
  const [made] = await ipJson<{
    mtu: number;
    address: string;
    linkinfo: { info_kind: string; info_data: Record<string, unknown> };
  }>(one.pod, 'link', 'show', 'eth0');
  t.is(made?.linkinfo.info_kind, 'tun');
  t.like(made?.linkinfo.info_data, {
    type: 'tap',
    pi: false,
    vnet_hdr: true,
    multi_queue: true,
    persist: true,
    user: 70107,
    group: 70108,
  });
  t.is(made?.mtu, 1400);
  t.is(made?.address, '0a:58:0a:61:00:07');
  t.is(one.result!.interfaces![0]!.mac, '0a:58:0a:61:00:07');
  t.deepEqual(await addresses(one.pod, 'eth0'), [`${one.ip}/16`]);
  await one.check();
  await one.del();
  await one.del();
  t.is(await link(one.pod, 'eth0'), undefined);
});

test('it becomes a port of a bridge in the sandbox', async (t) => {
  const host = await makeHost(t);
  const pod = await host.addPod();
  await pod.run(['ip', 'link', 'add', 'br0', 'type', 'bridge']);
  const one = await attach(host, changed(name, { bridge: 'br0', ipam: undefined, owner: undefined }), {
    pod,
  });
  t.is((await link(pod, 'eth0'))?.master, 'br0');
  await one.check();
  await pod.run(['ip', 'link', 'set', 'eth0', 'nomaster']);
  t.regex((await one.tryCheck()).error?.msg ?? '', /not a port of bridge "br0"/);
});

test('what cannot be is refused, and nothing is left', async (t) => {
  const host = await makeHost(t);
  const pod = await host.addPod();
  for (const [keys, message] of [
    [{ bridge: 'br0' }, /has no bridge "br0"/],
    [{ mac: 'nonsense' }, /MAC address "nonsense"/],
    [{ selinuxContext: 'system_u:object_r:x_t:s0' }, /does not take SELinux context/],
    [{ owner: -1 }, /between 0 and/],
    [{ ipam: { type: 'none-such' } }, /not in CNI_PATH/],
  ] as const) {
    const outcome = await new Attachment(host, pod, changed(name, keys)).tryAdd();
    t.regex(outcome.error?.msg ?? 'no error', message);
    t.is(await link(pod, 'eth0'), undefined);
  }
});

test('two ADDs that both find the name free do not share one interface', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  const pod = await host.addPod();
  const { name: network, cniVersion, plugins } = changed(name, { ipam: undefined });
  const slowly = 'strace -qq -o /dev/null -P /dev/net/tun -e inject=openat:delay_enter=10000000'.split(' ');
  const add = () =>
    host.tryRun([...slowly, join(suites.ours, 'tap')], {
      env: addEnvironment(pod),
      stdin: JSON.stringify({ ...plugins[0], name: network, cniVersion }),
    });
  const outcomes = await Promise.all([add(), add()]);
  const [loser, ...others] = outcomes.filter(({ exit }) => exit !== 0);
  t.deepEqual(others, []);
  t.regex(loser?.stdout ?? '', /EBUSY/);
  t.truthy(await link(pod, 'eth0'));
});

test('a later plugin may change the MTU', async (t) => {
  const host = await makeHost(t);
  const network = changed(name, { mtu: 1500 });
  const one = await attach(host, {
    ...network,
    plugins: [...network.plugins, { type: 'tuning', mtu: 1400 }],
  });
  t.is((await link(one.pod, 'eth0'))?.mtu, 1400);
  await one.check();
});
