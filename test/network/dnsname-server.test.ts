/** The dnsmasq of a network: when it runs, and when it is replaced or ended. */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { attach } from '../support/chain.ts';
import { fakePrograms } from '../support/firewall.ts';
import { makeHost } from '../support/host.ts';
import {
  endNameServer,
  makeNamedHost,
  nameDirectory,
  named,
  nameServer,
  network,
  serverOf,
} from '../support/name-server.ts';
import { dig, iptablesSave, snapshot, until } from '../support/observe.ts';
import { LimitedHost } from '../support/privileges.ts';

test('the last DEL leaves no process, no file and no rule, also without result and namespace', async (t) => {
  const host = await makeNamedHost(t);
  const pod = await host.addPod();
  const first = await attach(host, network(), { ...named('web'), pod });
  await first.del();
  const before = await snapshot(host);
  const again = await attach(host, network(), { ...named('web'), pod });
  t.truthy(serverOf(host));
  t.true((await iptablesSave(host, 'filter')).some((rule) => rule.includes('--dport 53')));
  const commandLine = `/proc/${serverOf(host)}/cmdline`;
  await again.del();
  t.deepEqual(await snapshot(host), before);
  t.false(existsSync(commandLine) && readFileSync(commandLine, 'utf8').includes('dnsmasq'));
  t.false((await iptablesSave(host, 'filter')).some((rule) => rule.includes('--dport 53')));
  const forgotten = await attach(host, network(), { ...named('web'), pod });
  forgotten.result = undefined;
  await forgotten.del({ netns: '', args: '' });
  await forgotten.del({ netns: '', args: '' });
  t.is(serverOf(host), undefined);
});

test('a server that has crashed is found by CHECK, and runs again with the next ADD', async (t) => {
  const host = await makeNamedHost(t);
  const web = await attach(host, network(), named('web'));
  process.kill(serverOf(host)!, 'SIGKILL');
  await until('dnsmasq has ended', async () => serverOf(host) === undefined);
  const outcome = await web.tryCheck();
  t.regex(outcome.error!.msg, /does not know "web\.cluster\.local"/);
  const other = await attach(host, network(), named('other'));
  t.deepEqual(await dig(other.pod, '10.31.0.1', 'web.cluster.local'), ['10.31.0.2']);
  await web.check();
});

test('a process that may not look at systemd runs the server itself', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  endNameServer(t, host, 'names');
  await host.run(['mkdir', '-p', '/run/systemd/system']);
  const limited = new LimitedHost(host, [
    'CAP_NET_ADMIN',
    'CAP_NET_BIND_SERVICE',
    'CAP_SETGID',
    'CAP_SYS_ADMIN',
  ]);
  t.not((await limited.tryRun(['readlink', '/proc/1/ns/net'])).exit, 0);
  const web = await attach(limited, network(), named('web'));
  t.truthy(serverOf(host));
  await web.del();
  t.is(serverOf(host), undefined);
});

test('a server is exchanged though it has removed its file long before its sockets are closed', async (t) => {
  const host = await makeNamedHost(t);
  const slowly = 'strace -DDqq -fo /dev/null -e trace=unlink -e inject=unlink:delay_exit=500000';
  const env = await fakePrograms(host, `exec ${slowly} /usr/sbin/dnsmasq "$@"`, ['dnsmasq'], ['']);
  const web = await attach(host, network(), named('web', { env }));
  // Ports are in its configuration, so that it is restarted.
  const other = await attach(
    host,
    network(),
    named('other', {
      env,
      capabilities: { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] },
    }),
  );
  t.deepEqual(await dig(other.pod, '10.31.0.1', 'web.cluster.local'), ['10.31.0.2']);
  await other.del();
  await web.del();
});

test("the server of a podman in root's login goes on, and ends with the last container", async (t) => {
  const host = await makeHost(t);
  const parent = '/run/user/0/containers/cni/dnsname';
  const directory = nameDirectory('names', parent);
  endNameServer(t, host, 'names', parent);
  endNameServer(t, host, 'names');
  const first = await attach(host, network(), named('first'));
  // As podman's plugin leaves it: at the same gateway, and with lines that name no container.
  await host.run([
    'sh',
    '-ec',
    `mkdir -p ${parent}; cd ${nameDirectory('names')}
    pid=$(cat pidfile); kill $pid; while [ -d /proc/$pid ]; do sleep 0.1; done; sed -i 's/\t# cni .*//' addnhosts
    sed -i 's,/run/containers/,/run/user/0/containers/,; s/\t# cni .*//' dnsmasq.conf
    rm -f pidfile; mv ${nameDirectory('names')} ${directory}; dnsmasq -u root --conf-file=${directory}/dnsmasq.conf`,
  ]);
  const second = await attach(host, network(), named('second'));
  t.truthy(nameServer(host, 'names', parent));
  t.is(serverOf(host), undefined);
  for (const { ip, name } of [
    { ip: first.ip, name: 'first' },
    { ip: second.ip, name: 'second' },
  ])
    t.deepEqual(await dig(second.pod, '10.31.0.1', `${name}.cluster.local`), [ip]);
  await first.del();
  t.deepEqual(await dig(second.pod, '10.31.0.1', 'first.cluster.local'), []);
  await second.del();
  t.is(nameServer(host, 'names', parent), undefined);
  t.not((await host.tryRun(['ls', directory])).exit, 0);
});

test('DEL removes what a killed ADD has left half written, while others have names', async (t) => {
  const host = await makeNamedHost(t);
  const one = await attach(host, network(), named('one'));
  const other = await attach(host, network(), named('other'));
  const half = host.file(`${nameDirectory('names')}/addnhosts.99999999.tmp`);
  writeFileSync(half, '');
  await other.del();
  t.false(existsSync(half));
  await one.del();
});
