/**
 * The tests' own instruments, tried on the reference suite, which is known to work.
 * Runs once: no agent takes part.
 */

import test from 'ava';
import { attach, sample } from '../support/chain.ts';
import { makeHost } from '../support/host.ts';
import * as observe from '../support/observe.ts';

test('a chain of reference plugins is seen to come, to work and to go', async (t) => {
  const host = await makeHost(t);
  const empty = await observe.snapshot(host);
  const options = { suite: 'reference' } as const;
  const portMappings = [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }];
  const server = await attach(host, sample('10-bridge.conflist'), {
    ...options,
    capabilities: { portMappings },
  });
  const client = await attach(host, sample('10-bridge.conflist'), options);

  t.deepEqual(await observe.addresses(server.pod, 'eth0'), [server.result!.ips![0]!.address]);
  t.is((await observe.link(host, 'cni0'))?.linkinfo?.info_kind, 'bridge');
  t.is((await observe.routes(server.pod)).find(({ dst }) => dst === 'default')?.gateway, '10.88.0.1');
  t.true(await observe.ping(client.pod, server.ip));
  t.false(await observe.ping(client.pod, '10.88.99.99'));

  await observe.serve(t, server.pod, 'tcp', 80, 'web');
  await observe.serve(t, server.pod, 'udp', 53, 'dns');
  t.is((await observe.reach(client.pod, 'tcp', server.ip, 80)).peer, client.ip);
  t.is((await observe.reach(host, 'udp', server.ip, 53)).label, 'dns');
  t.is((await observe.reach(host, 'tcp', '127.0.0.1', 8080)).label, 'web');
  t.is(await observe.ask(host, 'tcp', '127.0.0.1', 8081), undefined);

  const rules = (await observe.iptablesSave(host)).join('\n');
  t.regex(rules, /--to-destination 10\.88\.0\.2:80/);
  t.notDeepEqual(await observe.snapshot(host), empty);
  await server.del();
  const idle = await observe.snapshot(host);
  await server.add();
  t.notDeepEqual(await observe.snapshot(host), idle);
  await server.del();
  t.deepEqual(await observe.snapshot(host), idle);
});
