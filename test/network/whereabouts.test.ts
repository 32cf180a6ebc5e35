import test from 'ava';
import { Etcd } from '../support/etcd.ts';
import { makeHost } from '../support/host.ts';
import { until } from '../support/observe.ts';
import { makeAuthority, tlsKeys, tlsOptions } from '../support/pki.ts';
import { runPlugin, succeeded } from '../support/plugin.ts';
import { Cluster, clusterOf } from '../support/whereabouts.ts';

test('two nodes never give an address twice, and DEL gives it back', async (t) => {
  const cluster = await clusterOf(t, { range: '10.70.0.0/29', gateway: '10.70.0.1' });
  const given = await Promise.all(
    ['a', 'b', 'c', 'd', 'e'].map((id, i) => cluster.add(id, { node: `node-${i % 2}` })),
  );
  t.deepEqual(
    given.toSorted(),
    [2, 3, 4, 5, 6].map((last) => `10.70.0.${last}`),
  );
  const full = await cluster.run('ADD', 'f', { node: 'node-1' });
  t.regex(full.error!.msg, /No address is free in 10\.70\.0\.1-10\.70\.0\.6 of network "vlan7"/);
  const { result } = await cluster.run('ADD', 'a', { node: 'node-0' });
  t.deepEqual(result!.ips, [{ address: `${given[0]}/29`, gateway: '10.70.0.1' }]);
  t.is((await cluster.run('CHECK', 'a', { node: 'node-0', prevResult: result })).exit, 0);
  await cluster.del('a', { node: 'node-0', prevResult: result });
  await cluster.del('a', { node: 'node-0' });
  t.is(await cluster.add('f'), given[0]!);
  const lost = await cluster.run('CHECK', 'a', { node: 'node-0', prevResult: result });
  t.regex(lost.error!.msg, /10\.70\.0\.\d is not reserved for container "a"/);
  for (const [i, id] of ['b', 'c', 'd', 'e'].entries())
    await cluster.del(id, { node: `node-${(i + 1) % 2}` });
  await cluster.del('f');
  t.deepEqual(await cluster.kept(), {});
});

test('ranges, exclusions, requests, fixed addresses, routes and the forms of a range', async (t) => {
  const cluster = await clusterOf(t, {
    range: '10.70.0.10-10.70.0.12/24',
    exclude: ['10.70.0.10', '10.70.0.12/32'],
    ipRanges: [{ range: 'fd00:70::/64', range_start: 'fd00:70::5', range_end: 'fd00:70::5' }],
    gateway: '10.70.0.254',
    routes: [{ dst: '0.0.0.0/0' }],
    dns: { nameservers: ['10.70.0.254'] },
    addresses: [{ address: '192.0.2.9/24', gateway: '192.0.2.1' }],
  });
  const { result } = await cluster.run('ADD', 'a');
  t.deepEqual(result, {
    cniVersion: '1.1.0',
    ips: [
      { address: '10.70.0.11/24', gateway: '10.70.0.254' },
      { address: 'fd00:70::5/64' },
      { address: '192.0.2.9/24', gateway: '192.0.2.1' },
    ],
    routes: [{ dst: '0.0.0.0/0' }],
    dns: { nameservers: ['10.70.0.254'] },
  });
  const wide = { range: '10.71.0.0/16', exclude: [], ipRanges: [], addresses: [] };
  t.is(await cluster.add('b', { ipam: wide, args: 'IP=10.71.3.4/16' }), '10.71.3.4');
  const taken = await cluster.run('ADD', 'c', { ipam: wide, args: 'IP=10.71.3.4' });
  t.regex(taken.error!.msg, /requested address 10\.71\.3\.4 is reserved already/);
  const outside = await cluster.run('ADD', 'c', { ipam: wide, args: 'IP=10.72.3.4' });
  t.regex(outside.error!.msg, /No range gives the requested address 10\.72\.3\.4 away/);
  t.is(await cluster.add('c', { ipam: { ...wide, range: '10.73.0.7/32' } }), '10.73.0.7');
  const pair = { ...wide, range: '10.73.0.8/31' };
  t.deepEqual([await cluster.add('d', { ipam: pair }), await cluster.add('e', { ipam: pair })].toSorted(), [
    '10.73.0.8',
    '10.73.0.9',
  ]);
});

test('addresses that are fixed, or asked for from outside of all ranges, need no range', async (t) => {
  const cluster = await clusterOf(t, { range: undefined });
  for (const [id, ipam, args] of [
    ['a', { addresses: [{ address: '192.0.2.9/24' }] }, ''],
    ['b', {}, 'IP=192.0.2.9/24'],
  ] as const) {
    const { result, stdout } = await cluster.run('ADD', id, { ipam, args });
    t.deepEqual(result?.ips, [{ address: '192.0.2.9/24' }], stdout);
    t.is((await cluster.run('CHECK', id, { ipam, args, prevResult: result })).exit, 0);
    await cluster.del(id, { ipam, args, prevResult: result });
  }
  t.deepEqual(await cluster.kept(), {});
});

test('ranges that overlap share addresses, unless they are told apart', async (t) => {
  const cluster = await clusterOf(t, { range: '10.70.0.4/32' });
  t.is(await cluster.add('a'), '10.70.0.4');
  const wider = { range: '10.70.0.4/31' };
  t.is(await cluster.add('b', { ipam: wider, conf: { name: 'other' } }), '10.70.0.5');
  t.is(
    await cluster.add('c', { ipam: { ...wider, network_name: 'blue', range_end: '10.70.0.4' } }),
    '10.70.0.4',
  );
  const alone = { enable_overlapping_ranges: false };
  t.is(await cluster.add('d', { ipam: alone }), '10.70.0.4');
  for (const [id, calling] of [
    ['a', {}],
    ['b', { ipam: wider, conf: { name: 'other' } }],
    ['c', { ipam: { ...wider, network_name: 'blue' } }],
    ['d', { ipam: alone }],
  ] as const)
    await cluster.del(id, calling);
  t.deepEqual(await cluster.kept(), {});
});

test('an address in quarantine goes to no other pod, and back to one of the same name', async (t) => {
  const cluster = await clusterOf(t, { range: '10.70.0.4/31', quarantine: 600 });
  const first = await cluster.add('a', { pod: 'db-0' });
  await cluster.del('a', { pod: 'db-0' });
  const other = await cluster.add('b', { pod: 'db-1' });
  t.not(other, first);
  t.regex((await cluster.run('ADD', 'c', { pod: 'db-2' })).error!.msg, /No address is free/);
  t.is(await cluster.add('d', { pod: 'db-0', node: 'node-2' }), first);
  const leases = async () =>
    ((await cluster.etcd.ask('/v3/lease/leases', {})) as { leases: unknown[] }).leases.length;
  const before = await leases();
  for (let i = 0; i < 3; i++) await cluster.del('c', { pod: 'db-2' });
  t.is(await leases(), before, 'what has no address needs no quarantine');
  await cluster.del('b', { pod: 'db-1', ipam: { quarantine: 1 } });
  await until(
    'the quarantine is over',
    async () => (await cluster.run('ADD', 'e', { pod: 'db-9' })).exit === 0,
  );
});

test('GC keeps what is valid, and what is of other nodes and networks', async (t) => {
  const cluster = await clusterOf(t);
  await cluster.add('live');
  await cluster.add('stale');
  await cluster.add('far', { node: 'node-2' });
  await cluster.add('near', { conf: { name: 'vlan70' } });
  const gc = await cluster.run('GC', '', {
    node: 'NODE-1',
    conf: { 'cni.dev/valid-attachments': [{ containerID: 'live', ifname: 'eth0' }] },
  });
  t.is(gc.exit, 0, gc.stdout);
  const keys = Object.keys(await cluster.etcd.all('/cni/addresses/of/'));
  t.deepEqual(
    keys.map((key) => key.split('/')[6]),
    ['live', 'near', 'far'],
  );
  t.is(Object.keys(await cluster.etcd.all('/cni/addresses/in/')).length, 3);
});

test('lists of old versions are taken over: their addresses are in use until DEL', async (t) => {
  const cluster = await clusterOf(t, { range: '10.70.0.0/30' });
  const list = '/whereabouts/10.70.0.0/30';
  await cluster.etcd.put(list, '10.70.0.1 old-one\n10.70.0.2 old-two\n');
  t.regex((await cluster.run('ADD', 'a')).error!.msg, /No address is free/);
  await cluster.del('old-one');
  t.is((await cluster.etcd.all())[list]?.trim(), '10.70.0.2 old-two');
  t.is(await cluster.add('a'), '10.70.0.1');
  await cluster.del('old-two');
  t.is((await cluster.etcd.all())[list], undefined);
});

test('while etcd is away, ADD says so and pods are torn down; nothing is lost', async (t) => {
  const cluster = await clusterOf(t, { range: '10.70.0.4/31' });
  const [one, two] = [await cluster.add('a'), await cluster.add('b')];
  await cluster.etcd.kill(0);
  const away = await cluster.run('ADD', 'c');
  t.is(away.error!.code, 11);
  t.regex(away.error!.msg, /No member of etcd can answer\. See that http:\/\/127\.0\.1\.1:2379 is up/);
  t.is((await cluster.run('STATUS', '')).error!.code, 50);
  t.regex((await cluster.del('a')).stderr, /released by the next call that reaches etcd/);
  await cluster.etcd.startMember(0);
  await until('it answers again', async () => (await cluster.run('STATUS', '')).exit === 0);
  t.is(await cluster.add('d'), one);
  // A container that comes back with the same ID keeps what it had.
  await cluster.etcd.kill(0);
  await cluster.del('b');
  await cluster.etcd.startMember(0);
  await until('b is added', async () => (await cluster.run('ADD', 'b')).exit === 0);
  t.is((await cluster.run('STATUS', '')).exit, 0);
  t.is((await cluster.run('ADD', 'b')).result!.ips![0]!.address, `${two}/31`);
});

/** Passes requests on to etcd, and loses the answers to those that write. */
const loser = `
const { createServer } = require('node:http');
createServer(async (request, response) => {
  let body = '';
  for await (const chunk of request) body += chunk;
  const url = 'http://127.0.1.1:2379' + request.url;
  const answer = await fetch(url, { method: request.method, headers: { 'content-type': 'application/json' }, body });
  const text = await answer.text();
  if (body.includes('request_put')) return request.socket.destroy();
  response.writeHead(answer.status, { 'content-type': 'application/json' });
  response.end(text);
}).listen(3379, '127.0.0.1', () => console.log('started'));
`;

test('what an ADD got whose answer was lost is released by the next call', async (t) => {
  const cluster = await clusterOf(t, { range: '10.70.0.4/31' });
  await cluster.host.start(t, [process.execPath, '-e', loser]);
  const { error, stderr } = await cluster.run('ADD', 'a', { ipam: { etcd_host: '127.0.0.1:3379' } });
  t.is(error!.code, 11);
  t.regex(stderr, /released by the next call that reaches etcd/);
  t.regex(Object.keys(await cluster.kept()).join(), /\/cni\/addresses\/in\//, 'etcd has carried it out');
  t.is((await cluster.run('STATUS', '')).exit, 0);
  t.deepEqual(await cluster.kept(), {});
});

test('with three members, one is killed and one hangs; every address is given once', async (t) => {
  const cluster = await clusterOf(t, { range: '10.70.0.0/26' }, 3);
  const ids = Array.from({ length: 40 }, (_, i) => `pod-${i}`);
  // As runtimes do, it tries again later: it may have been the leader that is killed.
  const add = async (id: string, node: string, tries = 5): Promise<string> => {
    const outcome = await cluster.run('ADD', id, { node });
    if (outcome.error?.code === 11 && tries > 1) return await add(id, node, tries - 1);
    return succeeded(outcome).result!.ips![0]!.address;
  };
  const addAll = (some: readonly string[]) => Promise.all(some.map((id, i) => add(id, `node-${i % 3}`)));
  const first = await addAll(ids.slice(0, 20));
  await cluster.etcd.kill(1);
  const second = await addAll(ids.slice(20));
  t.is(new Set([...first, ...second]).size, 40);
  await Promise.all(ids.map((id, i) => cluster.del(id, { node: `node-${(i % 20) % 3}` })));
  await until('all are released', async () => {
    // It does what a DEL has left to be done later.
    await cluster.run('STATUS', '');
    return Object.keys(await cluster.kept()).length === 0;
  });
  await cluster.etcd.startMember(1);
  await until('it is back', async () => (await cluster.run('STATUS', '')).exit === 0);
  cluster.etcd.signal(2, 'SIGSTOP');
  // It may have been the leader: until there is another, runtimes are told to try again later.
  await until('two members answer', async () => (await cluster.run('STATUS', '')).exit === 0);
  const third = await addAll(ids.slice(0, 6));
  t.is(new Set(third).size, 6);
  cluster.etcd.signal(2, 'SIGCONT');
});

test('ADD takes two requests, and DEL one, also in a large range and in one that is almost full', async (t) => {
  const cluster = await clusterOf(t, { range: '10.0.0.0/8' });
  const requests = () => cluster.etcd.handled('Txn');
  const small = { ipam: { range: '10.70.0.0/26' } };
  const ids = Array.from({ length: 61 }, (_, i) => `other-${i}`).values();
  const work = async () => {
    for (const id of ids) await cluster.add(id, small);
  };
  await Promise.all(Array.from({ length: 6 }, work));
  for (const calling of [{}, small]) {
    const before = await requests();
    const { result: prevResult } = await cluster.run('ADD', 'a', calling);
    t.is((await requests()) - before, 2);
    await cluster.del('a', { ...calling, prevResult });
    t.is((await requests()) - before, 3);
  }
});

test('what whereabouts reads or ignores is no mistake', async (t) => {
  const cluster = await clusterOf(t, { range: '10.70.0.0/29', range_start: '10.70.0.006' });
  t.is(await cluster.add('decimal'), '10.70.0.6');
  t.is(await cluster.add('range', { ipam: { range: '10.70.0.005-10.70.000.5/29' } }), '10.70.0.5');
  const ends = { range_start: '10.71.0.1', range_end: 'x' };
  for (const [ipam, expected] of [
    [{ ...ends, exclude: ['10.70.0.2/31', '10.70.0.4'] }, '10.70.0.1'],
    // The last address before the first one, and bounds beside a range that has its own.
    [{ range_start: '10.70.0.4', range_end: '10.70.0.2', exclude: ['10.70.0.5'] }, '10.70.0.4'],
    [{ ...ends, range: '10.70.0.3-10.70.0.3/29', range_end: '10.70.0.6' }, '10.70.0.3'],
    [{ ipRanges: [{ range: 'fd00::/126', range_start: 'fd00::', range_end: 'fd00::1' }] }, 'fd00::1'],
  ] as [{ ipRanges?: object[] }, string][]) {
    const calling = { ipam: ipam.ipRanges ? { range: '10.72.0.1/32', range_start: '', ...ipam } : ipam };
    const given = (await cluster.add(`of-${expected.replaceAll(':', '-')}`, calling)).split(' ').at(-1);
    t.is(given, expected);
  }
});

test('DEL releases what was attached, though the ranges of the network are wrong by now', async (t) => {
  const cluster = await clusterOf(t);
  const { result: prevResult } = await cluster.run('ADD', 'a');
  await cluster.add('b');
  const list = '/whereabouts/10.70.0.0/24';
  await cluster.etcd.put(list, '10.70.0.99 old');
  for (const ipam of [
    { exclude: ['x'] },
    { ipRanges: [{ range: '10.70.0.0/25' }] },
    { node_slice_size: '/28' },
  ]) {
    t.is((await cluster.run('ADD', 'c', { ipam })).exit, 1);
    await cluster.add('c');
    await cluster.del('c', { ipam });
  }
  await cluster.del('a', { ipam: { exclude: ['10.70.0.0/24'] }, prevResult });
  await cluster.del('b', { ipam: { range: '10.70.0.0' } });
  t.deepEqual(Object.keys(await cluster.kept()), [list]);
  await cluster.del('old', { ipam: { exclude: ['x'] } });
  t.deepEqual(await cluster.kept(), {});
});

test('without the file that is named, the next one counts; ranges that overlap are not its affair', async (t) => {
  const cluster = await clusterOf(t);
  const { host } = cluster;
  const directory = '/etc/cni/net.d/whereabouts.d';
  await host.run(['mkdir', '-p', directory]);
  const keys = { enable_overlapping_ranges: false, range: '10.70.0.9/32' };
  await host.run(['tee', `${directory}/whereabouts.conf`], { stdin: JSON.stringify(keys) });
  const ipam = { configuration_path: '/etc/cni/nowhere', range: undefined };
  t.is(await cluster.add('a', { ipam }), '10.70.0.9');
  // Another range has the address as well.
  t.regex(
    (await cluster.run('ADD', 'b', { ipam: { range: '10.70.0.8/31', exclude: ['10.70.0.8'] } })).error!.msg,
    /No address is free/,
  );
  await cluster.del('a', { ipam });
  t.deepEqual(await cluster.kept(), {});
  await host.run(['tee', `${directory}/mine.conf`], { stdin: '{' });
  const broken = await cluster.run('ADD', 'a', { ipam: { configuration_path: `${directory}/mine.conf` } });
  t.regex(broken.error!.msg, /mine\.conf" cannot be used/);
});

test('what cannot be is refused', async (t) => {
  const cluster = await clusterOf(t);
  for (const [ipam, message] of [
    [{ range: '10.70.0.0' }, /"range" of "ipam" is "10\.70\.0\.0"\. Write it like/],
    [{ exclude: ['x'] }, /"exclude" of "ipam" has "x"/],
    [{ exclude: ['10.70.0.0/24'] }, /has no address .*: "exclude" takes some out\. Make/],
    [{ range: '10.70.0.1/32', gateway: '10.70.0.1' }, /: gateway 10\.70\.0\.1 is never given away\. Make/],
    [{ ipRanges: [{ range: '10.70.0.128/25' }] }, /overlap/],
    [{ range: '' }, /"ipam" has no addresses to give away/],
    [{ etcd_host: '' }, /"ipam" has no "etcd_host"/],
    [{ etcd_host: 'ftp://x' }, /"etcd_host" names "ftp:\/\/x"/],
    [{ node_slice_size: '/28' }, /"node_slice_size"/],
    [{ etcd_ca_cert_file: '/nowhere' }, /"etcd_ca_cert_file" is "\/nowhere", which cannot be read/],
    [{ configuration_path: '/nowhere', etcd_host: '' }, /in a file that "configuration_path" names/],
  ] as const) {
    const { exit, error } = await cluster.run('ADD', 'a', { ipam });
    t.is(exit, 1);
    t.regex(error!.msg, message);
  }
  await cluster.add('a');
  await cluster.del('a', { ipam: { range: '10.70.0.1/32', gateway: '10.70.0.1' } });
  t.deepEqual(await cluster.kept(), {});
});

test('with TLS and a password; without them, and with another authority', async (t) => {
  const host = await makeHost(t);
  const own = await makeAuthority(host, 'own', ['127.0.1.1']);
  const other = await makeAuthority(host, 'other', ['127.0.1.1']);
  const etcd = await Etcd.start(t, host, { tls: own, options: tlsOptions('own') });
  await etcd.requirePassword('secret');
  const user = { etcd_username: 'root', etcd_password: 'secret' };
  const cluster = new Cluster(host, etcd, { ...tlsKeys(own), ...user });
  t.regex(await cluster.add('a'), /^10\.70\.0\.\d+$/);
  for (const [ipam, pattern] of [
    [{ etcd_password: 'wrong' }, /etcd refuses user "root": .*invalid user ID or password/],
    [{ etcd_username: '' }, /etcd refuses a caller without "etcd_username"/],
    [tlsKeys(other), /No member of etcd can answer/],
    [{ etcd_cert_file: '', etcd_key_file: '' }, /No member of etcd can answer/],
  ] as const) {
    const { error } = await cluster.run('ADD', 'b', { ipam });
    t.is(error!.code, 11);
    t.regex(error!.msg, pattern);
    t.notRegex(JSON.stringify(error), /secret/);
  }
  await cluster.del('a');
  const wrong = await cluster.del('a', { ipam: { etcd_password: 'wrong' } });
  t.regex(wrong.stderr, /released by the next call that reaches etcd/);
  t.is((await cluster.run('STATUS', '')).exit, 0);
});

/** Answers once the whole request is read: unread data would make the kernel reset the connection. */
const afterRequest = `length=0
while IFS= read -r line && [ "$line" != $'\\r' ]; do
  case $line in [Cc]ontent-[Ll]ength:*) length=\${line#*: }; length=\${length%$'\\r'} ;; esac
done
head -c "$length" >/dev/null
cat /run/answer
`;

test('what answers in place of etcd is told apart', async (t) => {
  const host = await makeHost(t);
  await host.run(['tee', '/run/serve'], { stdin: afterRequest });
  for (const [answer, pattern] of [
    ['HTTP/1.0 200 OK\r\n\r\n<html>', /No member of etcd can answer.* no JSON: <html>/],
    ['HTTP/1.0 200 OK\r\n\r\n{"responses":7}', /does not speak as etcd 3\.4 or newer/],
    ['HTTP/1.0 200 OK\r\n\r\n{}', /does not speak as etcd 3\.4 or newer/],
    ['HTTP/1.0 200 OK\r\n\r\n{"header":{}}', /does not speak as etcd 3\.4 or newer/],
    [
      'HTTP/1.0 200 OK\r\n\r\n{"header":{},"succeeded":true,"responses":[{},{},{},{}]}',
      /does not speak as etcd 3\.4 or newer/,
    ],
    ['SSH-2.0-x\r\n', /No member of etcd can answer/],
  ] as const) {
    await host.run(['tee', '/run/answer'], { stdin: answer });
    const listen = 'TCP-LISTEN:2379,bind=127.0.0.1,reuseaddr,fork';
    const script = `echo started; exec socat ${listen} 'EXEC:bash /run/serve'`;
    const serving = await host.start(t, ['sh', '-c', script]);
    await until('it listens', async () => (await host.run(['ss', '-ltn'])).includes('127.0.0.1:2379'));
    const config = {
      ...{ cniVersion: '1.1.0', name: 'vlan7', type: 'macvlan' },
      ipam: { type: 'whereabouts', range: '10.70.0.0/24', etcd_host: '127.0.0.1' },
    };
    const call = { config, containerId: 'a', netns: '/x' };
    const { error } = await runPlugin(host, 'whereabouts', 'ADD', call);
    t.is(error!.code, 11);
    t.regex(`${error!.msg} ${error!.details}`, pattern);
    const { exit, stderr } = await runPlugin(host, 'whereabouts', 'DEL', call);
    t.is(exit, 0);
    t.regex(stderr, /released by the next call that reaches etcd/);
    serving.kill('SIGKILL');
    await until('it has ended', async () => !(await host.run(['ss', '-ltn'])).includes(':2379'));
  }
});
