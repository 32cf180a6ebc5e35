/**
 * Runs once: no agent takes part. Programs that go on after the plugin that started them was killed, and
 * rules that others rely on when the result of an ADD gets lost.
 */

import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { Attachment, type AttachOptions, attach, type Conflist, runNetworkVerb } from '../support/chain.ts';
import { fakePrograms, firewallNet, waitsForProgram, withoutFirewall } from '../support/firewall.ts';
import { type Host, makeHost, type Teardown } from '../support/host.ts';
import { makeNamedHost, named, network as namedNetwork, serverOf } from '../support/name-server.ts';
import { dig, files, iptablesSave, until } from '../support/observe.ts';
import { succeeded } from '../support/plugin.ts';
import { portNet } from '../support/portmap.ts';

const accepting = async (host: Host) =>
  (await iptablesSave(host, 'filter')).filter((rule) => /^-A CNI-FORWARD .* ACCEPT$/.test(rule));
const claims = (host: Host) => files(host, '/run/cni/firewall');

const isThere = (host: Host, file: string) => until(file, () => existsSync(host.file(file)));
const waiting = 'until [ -e /run/go ]; do sleep 0.05; done';

/**
 * An iptables-restore that kills the plugin, and goes on when it is told to.
 * @param what it is told to add or remove when it does so; anything by default.
 */
const orphan = (host: Host, what = '') =>
  fakePrograms(
    host,
    `cat > /run/rules.$$
    if grep -q -e '${what}' /run/rules.$$; then kill -9 $PPID; ${waiting}; fi
    /usr/sbin/iptables-restore "$@" < /run/rules.$$
    status=$?
    [ ! -e /run/go ] || touch /run/ended
    exit $status`,
    ['iptables'],
    ['-restore'],
  );

/** An iptables-restore that does its work, and ends when it is told to. */
const lingering = (host: Host) =>
  fakePrograms(
    host,
    `/usr/sbin/iptables-restore "$@" || exit; touch /run/done; ${waiting}`,
    ['iptables'],
    ['-restore'],
  );

async function waits(t: ExecutionContext, host: Host, cleanUp: () => Promise<unknown>): Promise<void> {
  await waitsForProgram(t, host, cleanUp);
  await isThere(host, '/run/ended');
}

const delWaits = (t: ExecutionContext, one: Attachment) => waits(t, one.host, () => one.del());

/** GC of an attachment's network, on which nothing is valid any more. */
const collect = async ({ host, network }: Attachment) =>
  succeeded(await runNetworkVerb(host, { ...network, cniVersion: '1.1.0' }, 'GC', { valid: [] }));

const gcWaits = (t: ExecutionContext, one: Attachment) => waits(t, one.host, () => collect(one));

/** A pod of a bridge, and networks of the firewall plugin alone that it can be put into, for IPv4. */
async function scene(t: Teardown) {
  const host = await makeHost(t, { mayHaveAgent: false });
  const network = firewallNet('1.0.0', { backend: 'iptables' });
  const one = await attach(host, withoutFirewall(network));
  const prevResult = { ...one.result!, ips: one.result!.ips!.slice(0, 1) };
  const add = async (on: Attachment, options?: AttachOptions) => {
    const { exit, error } = await on.tryAdd(options, prevResult);
    return error?.msg ?? exit;
  };
  // No IPAM plugin knows of these, so that nothing but the firewall's notes tells who has the address.
  const on = (name: string, pod = one.pod) =>
    new Attachment(host, pod, { ...network, name, plugins: network.plugins.slice(1) });
  // What all containers share is there from the start: it is added under a lock, by several programs.
  const first = on('first');
  await add(first);
  await first.del();
  return { host, pod: one.pod, prevResult, add, on };
}

test('DEL waits for what an ADD that was killed has started', async (t) => {
  const { host, add, on } = await scene(t);
  const killed = on('one');
  t.not(await add(killed, { env: await orphan(host) }), 0);
  await delWaits(t, killed);
  t.deepEqual([await accepting(host), claims(host)], [[], {}]);
});

test('GC waits for what an ADD that was killed has started, and for nothing of another network', async (t) => {
  const { host, pod, add, on } = await scene(t);
  const killed = on('one');
  t.not(await add(killed, { env: await orphan(host) }), 0);
  t.is((await collect(on('other', pod))).stderr, '');
  await gcWaits(t, killed);
  t.deepEqual([await accepting(host), claims(host)], [[], {}]);
});

test('DEL waits for what a DEL that was killed has started, and the next owner keeps its rules', async (t) => {
  const { host, pod, add, on } = await scene(t);
  const former = on('one', await host.addPod());
  t.is(await add(former), 0);
  t.not((await former.tryDel({ env: await orphan(host) })).exit, 0);
  await delWaits(t, former);
  const next = on('one', pod);
  t.is(await add(next), 0);
  t.is((await accepting(host)).length, 2);
});

test('what a DEL that was killed has started does not take the rules of the next owner', async (t) => {
  const { host, pod, prevResult, add, on } = await scene(t);
  const former = on('one', await host.addPod());
  former.result = prevResult;
  t.not((await former.tryDel({ env: await orphan(host) })).exit, 0);
  const next = on('one', pod);
  const adding = add(next);
  await sleep(1000);
  writeFileSync(host.file('/run/go'), '');
  t.is(await adding, 0);
  await isThere(host, '/run/ended');
  t.is((await accepting(host)).length, 2);
  await next.del();
  t.deepEqual([await accepting(host), claims(host)], [[], {}]);
});

test('a published port is free again after an ADD that was killed, whatever that has started', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  const capabilities = { portMappings: [{ hostPort: 8080, containerPort: 80 }] };
  const network = portNet({ backend: 'iptables' });
  const bridge = await attach(host, { ...network, plugins: network.plugins.slice(0, 1) });
  const mapped = { ...network, plugins: network.plugins.slice(1) };
  const killed = new Attachment(host, bridge.pod, mapped, { capabilities });
  t.is((await killed.tryAdd({}, bridge.result)).exit, 0, 'so that all that ports share is there');
  await killed.del();
  t.not((await killed.tryAdd({ env: await orphan(host) }, bridge.result)).exit, 0);
  await delWaits(t, killed);
  t.notRegex((await iptablesSave(host, 'nat')).join('\n'), /8080/);
  for (const file of ['go', 'ended']) rmSync(host.file(`/run/${file}`));
  t.not((await killed.tryAdd({ env: await orphan(host) }, bridge.result)).exit, 0);
  await gcWaits(t, killed);
  t.notRegex((await iptablesSave(host, 'nat')).join('\n'), /8080/);
  await (await attach(host, network, { capabilities })).check();
});

test('GC of a network waits for what multus has started for it', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  const capabilities = { portMappings: [{ hostPort: 8080, containerPort: 80 }] };
  const inner = portNet({ backend: 'iptables' });
  const plugins = [{ type: 'multus', delegates: [inner], capabilities: { portMappings: true } }];
  const outer: Conflist = { cniVersion: '1.1.0', name: 'outer', plugins };
  const first = await attach(host, outer, { capabilities });
  t.regex((await iptablesSave(host, 'nat')).join('\n'), /8080/);
  await first.del();
  const killed = new Attachment(host, await host.addPod(), outer, { capabilities });
  t.not((await killed.tryAdd({ env: await orphan(host, '8080') })).exit, 0);
  await gcWaits(t, new Attachment(host, killed.pod, { ...inner, plugins: inner.plugins.slice(1) }));
  t.notRegex((await iptablesSave(host, 'nat')).join('\n'), /8080/);
});

test('an ADD whose result gets lost leaves the rules that another network needs by now', async (t) => {
  const { host, pod, add, on } = await scene(t);
  const lost = on('one');
  const adding = add(lost, { env: await lingering(host), isUnheard: true });
  await isThere(host, '/run/done');
  const other = on('other', pod);
  t.is(await add(other, { containerId: 'other' }), 0);
  writeFileSync(host.file('/run/go'), '');
  t.not(await adding, 0);
  t.is((await accepting(host)).length, 2);
  await lost.del();
  t.is((await accepting(host)).length, 2);
  await other.del({ containerId: 'other' });
  t.deepEqual([await accepting(host), claims(host)], [[], {}]);
});

test('an ADD whose result gets lost does not hide the rules of those that had the address before', async (t) => {
  const { host, add, on } = await scene(t);
  const former = await host.addPod();
  t.is(await add(on('one', former)), 0);
  await former.remove();
  const lost = on('one');
  t.not(await add(lost, { isUnheard: true }), 0);
  lost.result = undefined;
  await lost.del();
  t.deepEqual([await accepting(host), claims(host)], [[], {}]);
});

test('pods can look up names, though the ADD that let them through was undone', async (t) => {
  const host = await makeNamedHost(t);
  await host.run(['iptables', '-P', 'INPUT', 'DROP']);
  const network = namedNetwork({}, { ipam: { type: 'host-local', subnet: '10.31.0.0/24' } });
  const bridge = await attach(host, { ...network, plugins: network.plugins.slice(0, 1) });
  const lost = new Attachment(
    host,
    bridge.pod,
    { ...network, plugins: network.plugins.slice(1) },
    named('lost'),
  );
  const adding = lost.tryAdd({ env: await lingering(host), isUnheard: true }, bridge.result);
  await isThere(host, '/run/done');
  const web = await attach(host, network, named('web'));
  writeFileSync(host.file('/run/go'), '');
  t.not((await adding).exit, 0);
  t.deepEqual(await dig(web.pod, '10.31.0.1', 'web.cluster.local'), ['10.31.0.3']);
  t.deepEqual(await dig(web.pod, '10.31.0.1', 'lost.cluster.local'), []);
  await web.del();
  t.false((await iptablesSave(host, 'filter')).some((rule) => rule.includes('--dport 53')));
});

test('a pod with a name can go when the disk is full', async (t) => {
  const host = await makeNamedHost(t);
  const web = await attach(host, namedNetwork(), named('web'));
  const other = await attach(host, namedNetwork(), named('other'));
  await host.run(['mount', '-o', 'remount,size=256k', '/run']);
  t.not((await host.tryRun(['dd', 'if=/dev/zero', 'of=/run/full', 'bs=4k'])).exit, 0);
  await web.del();
  t.deepEqual(await dig(other.pod, '10.31.0.1', 'web.cluster.local'), []);
  rmSync(host.file('/run/full'));
  await other.check();
  await other.del();
  t.is(serverOf(host), undefined);
});
