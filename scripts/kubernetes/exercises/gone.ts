/** What is left of a pod whose network namespace disappeared without a DEL, as after a crash. */

import { readFileSync } from 'node:fs';
import type { Claims } from '../../claims.ts';
import type { PodInfo } from '../api.ts';
import type { Cluster } from '../cluster.ts';

/**
 * Removes the network namespace of a pod from its node, and has `cni gc` collect what the pod had.
 * @param sandbox container ID of the pod's sandbox.
 * @param isFree whether the addresses of this pod are free, and those of all others are not.
 */
export async function collectLost(
  { nodes }: Cluster,
  claims: Claims,
  { pod, sandbox, isFree }: { pod: PodInfo; sandbox: string; isFree: () => Promise<boolean> },
): Promise<void> {
  const { node } = nodes.find(({ name }) => name === pod.node)!;
  // Source: the cache of libcni, in which containerd keeps the result of multus.
  const cached = readFileSync(node.file(`/var/lib/cni/results/multusnet-${sandbox}-eth0`), 'utf8');
  const { result } = JSON.parse(cached) as { result: { interfaces: { sandbox?: string }[] } };
  const namespace = result.interfaces.find((one) => one.sandbox)!.sandbox!;
  // The kubelet would make the pod a new sandbox, with a DEL for the old one.
  const kubelet = readFileSync(node.file('/run/daemons/kubelet.pid'), 'utf8').trim();
  await node.run(['kill', '-STOP', kubelet]);
  await node.run(['umount', '--lazy', namespace]);
  await node.run(['rm', namespace]);
  // Its exit code is 1 as long as the processes of the pod keep the other end of the veth pair alive.
  const { stdout } = await node.tryRun(['/opt/cni/bin/cni', 'gc', 'multusnet']);
  claims.show(`${pod.node}$ cni gc multusnet`, stdout);
  await claims.check(
    `once the namespace of pod ${pod.name} is gone without a DEL, cni gc on ${pod.node} frees its address in the pool, and those of the others stay`,
    isFree(),
  );
  await node.run(['kill', '-CONT', kubelet]);
}

/**
 * How often the API server has refused to change a pool because somebody else had changed it meanwhile.
 * Source: apiserver_request_total of its metrics, with code 409.
 */
export async function conflicts({ plane }: Cluster): Promise<number> {
  const metrics = await plane.kubectl(['get', '--raw', '/metrics']);
  const lines = metrics
    .split('\n')
    .filter(
      (line) =>
        line.startsWith('apiserver_request_total{') &&
        ['code="409"', 'resource="ippools"', 'verb="PATCH"'].every((label) => line.includes(label)),
    );
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}
