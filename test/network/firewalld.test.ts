import { mkdirSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { Attachment, attach, type Conflist, runNetworkVerb } from '../support/chain.ts';
import { firewallAlone } from '../support/firewall.ts';
import { firewalld } from '../support/firewalld.ts';
import { type Host, makeHost } from '../support/host.ts';
import { files } from '../support/observe.ts';

const network: Conflist = {
  cniVersion: '1.1.0',
  name: 'net',
  plugins: [
    { type: 'bridge', bridge: 'br0', isGateway: true, ipam: { type: 'host-local', subnet: '10.5.0.0/24' } },
    { type: 'firewall' },
  ],
};

const sources = (host: Host, zone: string) => host.run(['firewall-cmd', `--zone=${zone}`, '--list-sources']);

test('where firewalld runs, a pod is a source of its zone, and leaves it', async (t) => {
  const host = await makeHost(t);
  await firewalld(t, host);
  const one = await attach(host, network);
  t.regex(await sources(host, 'trusted'), new RegExp(`${one.ip}/32`));
  t.notRegex((await host.run(['iptables-save', '-t', 'filter'])) ?? '', /CNI-FORWARD/);
  await one.check();
  const firewall = firewallAlone(one, {});
  t.is((await firewall.tryAdd({}, one.result)).exit, 0, 'twice is no error');
  await host.run(['firewall-cmd', '--zone=trusted', `--remove-source=${one.ip}/32`]);
  t.regex((await one.tryCheck()).error?.msg ?? '', /Missing: source .* of zone/);
  await one.del();
  await one.del();
  t.is((await sources(host, 'trusted')).trim(), '');

  const zoned = { ...network, plugins: [network.plugins[0]!, { type: 'firewall', firewalldZone: 'work' }] };
  const two = await attach(host, zoned);
  t.regex(await sources(host, 'work'), new RegExp(`${two.ip}/32`));
  t.is((await runNetworkVerb(host, zoned, 'STATUS')).exit, 0);
  // A zone that is gone by then has no sources.
  await host.run(['rm', '-r', '/run/cni/firewall']);
  const moved = firewallAlone(two, { firewalldZone: 'none-such' });
  moved.result = two.result;
  await moved.del();
  await two.del();

  const wrong = {
    ...network,
    plugins: [network.plugins[0]!, { type: 'firewall', firewalldZone: 'none-such' }],
  };
  const failed = await new Attachment(host, await host.addPod(), wrong).tryAdd();
  t.regex(failed.error?.msg ?? '', /firewalld refuses addSource .* in zone "none-such": .*INVALID_ZONE/);
});

test('whatever comes or goes between ADD and DEL, each firewall loses what it was told', async (t) => {
  const host = await makeHost(t);
  const before = await attach(host, network);
  const accepted = async () =>
    (await host.run(['iptables-save', '-t', 'filter'])).match(/^-A CNI-FORWARD -s/gm)?.length ?? 0;
  t.is(await accepted(), 1);
  const stop = await firewalld(t, host);
  const after = await attach(host, {
    ...network,
    plugins: [network.plugins[0]!, { type: 'firewall', firewalldZone: 'work' }],
  });
  // firewalld begins with a clean table; rules that were put back since are the pod's all the same.
  await host.tryRun(['iptables', '-N', 'CNI-FORWARD']);
  await host.run(['iptables', '-A', 'CNI-FORWARD', '-s', `${before.ip}/32`, '-j', 'ACCEPT']);
  await before.del();
  t.is(await accepted(), 0);
  const lost = firewallAlone(after, {});
  await lost.del();
  t.is((await sources(host, 'work')).trim(), '', 'DEL knows the zone even without prevResult');
  await lost.tryAdd({}, after.result);
  t.regex(await sources(host, 'trusted'), new RegExp(after.ip));
  t.is((await runNetworkVerb(host, lost.network, 'GC', { valid: [] })).exit, 0);
  t.is((await sources(host, 'trusted')).trim(), '');
  await lost.tryAdd({}, after.result);
  await stop();
  await lost.del();
  t.deepEqual(files(host, '/run/cni/firewall'), {});
});

test('an ADD that fails leaves the sources that were there before', async (t) => {
  const host = await makeHost(t);
  await firewalld(t, host);
  const one = await attach(host, network);
  const env = await failingSecondCall(host);
  const again = firewallAlone(one, {});
  const outcome = await again.tryAdd({ env }, one.result);
  t.regex(outcome.error?.msg ?? '', /firewalld does not answer/);
  t.regex(await sources(host, 'trusted'), new RegExp(`${one.ip}/32`));
  await one.check();
});

test('where firewalld runs and dbus-send is missing, no other firewall is taken in its place', async (t) => {
  const host = await makeHost(t);
  await firewalld(t, host);
  await host.run(['mount', '--bind', '/dev/null', '/usr/bin/dbus-send']);
  const message = /firewalld filters on this host, but "dbus-send" is not installed/;
  const one = new Attachment(host, await host.addPod(), network);
  t.regex((await one.tryAdd()).error?.msg ?? '', message);
  const status = await runNetworkVerb(host, network, 'STATUS');
  t.regex(status.error?.msg ?? '', message);
  t.is(status.error?.code, 50);
  await one.del();
  t.deepEqual(files(host, '/run/cni/firewall'), {});
  const chosen = { ...network, plugins: [network.plugins[0]!, { type: 'firewall', backend: 'iptables' }] };
  await (await attach(host, chosen)).del();
  // A bus alone does not mean that firewalld is there.
  await host.run(['nft', 'delete', 'table', 'inet', 'firewalld']);
  await (await attach(host, network)).check();
});

/** An environment in which D-Bus answers only whether firewalld runs. */
async function failingSecondCall(host: Host): Promise<NodeJS.ProcessEnv> {
  mkdirSync(host.file('/run/fake'));
  const script =
    '#!/bin/sh\ncase "$*" in *NameHasOwner*) exec /usr/bin/dbus-send "$@";; esac\necho "Failed to open connection" >&2; exit 1\n';
  writeFileSync(host.file('/run/fake/dbus-send'), script, { mode: 0o755 });
  return { PATH: '/run/fake:/usr/sbin:/usr/bin' };
}
