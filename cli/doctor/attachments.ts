/** CHECK of every attachment. */

import { checkStates } from '../state.ts';
import { count } from '../terminal.ts';
import { type Check, type Finding, shellWord } from './check.ts';
import type { RunningAttachment } from './context.ts';

export const attachments: Check = {
  id: 'attachments',
  title: 'Attachments',
  async run({ running, inventory, environment, once }) {
    const states = await checkStates(
      running.map(({ attachment }) => attachment),
      inventory,
      environment,
      once,
    );
    const unchecked = [...states.values()].filter(({ kind }) => kind === 'unchecked').length;
    const findings = running.flatMap((one): Finding[] => {
      const { kind, problems } = states.get(one.attachment)!;
      if (kind !== 'broken') return [];
      return [
        {
          severity: 'error',
          subject: `${one.name} on network "${one.attachment.network}"`,
          message: problems.join('; '),
          cause: 'Something has changed since ADD: another program, an operator, or the container itself',
          mend: anewCommand(one),
        },
      ];
    });
    const rest = unchecked > 0 ? `, ${unchecked} cannot be checked` : '';
    return {
      findings,
      seen: `CHECK of ${count(running.length - unchecked, 'attachment')} finds them as ADD left them${rest}`,
    };
  },
};

/** What has a pod attached anew. */
function anewCommand({ attachment: { pod, containerId, network, netns } }: RunningAttachment): string {
  if (pod?.namespace)
    return `kubectl delete pod --namespace ${shellWord(pod.namespace)} ${shellWord(pod.name)}`;
  if (pod) return `podman restart ${shellWord(pod.name)}`;
  const sandbox = `${shellWord(network)} ${shellWord(netns)}`;
  if (containerId.startsWith('cnitool-')) return `cni del ${sandbox} && cni add ${sandbox}`;
  return `Have the runtime of container "${containerId}" make it anew`;
}
