/**
 * multus in the agent, which keeps its connections to the Kubernetes API from one call to the next.
 * Runs once: it starts an agent itself.
 */

import test from 'ava';
import { attach } from '../support/chain.ts';
import { startAgent } from '../support/host.ts';
import { bridgeConfig, createPod, define, makeNode } from '../support/kube-pods.ts';
import { until } from '../support/observe.ts';
import { succeeded } from '../support/plugin.ts';

test('the agent does the calls of several pods over the same connections to the API, until the token is another', async (t) => {
  const { host, api, network } = await makeNode(t);
  await startAgent(t, host);
  define(api, 'shop', 'fast', bridgeConfig(1));
  const live = async (name: string) => {
    const args = createPod(api, { 'k8s.v1.cni.cncf.io/networks': 'fast' }, { name });
    const pod = await attach(host, network, { args });
    await pod.check();
    // DEL asks the API for what was not saved, with a shorter timeout.
    await host.run(['rm', '-r', '/var/lib/cni/multus']);
    const asked = api.requests.length;
    await until('the API answers within that', async () => {
      api.requests.length = asked;
      return !/does not answer/.test(succeeded(await pod.tryDel()).stderr);
    });
  };
  for (const name of ['a', 'b', 'c']) await live(name);
  t.is(api.requests.length, 21);
  // Definitions are asked for at the same time.
  t.true(api.connections < 10, `${api.connections}`);
  api.tokens.clear();
  api.tokens.set('renewed', 'system:node');
  api.kubeconfig('kubeconfig', { token: 'renewed' });
  await live('d');
  t.true(api.connections < 14, `${api.connections}`);
});
