/** Calls of whereabouts on the nodes of a cluster. */

import type { Host, Namespace } from './host.ts';
import { type Outcome, runPlugin, succeeded, withPatience } from './plugin.ts';

/** How a verb is called: on which node, and for what pod. */
export interface Calling {
  readonly node?: string;
  /** A node with files of its own. */
  readonly on?: Namespace;
  readonly pod?: string;
  readonly ipam?: object;
  readonly args?: string;
  readonly conf?: object;
  readonly prevResult?: unknown;
}

/** Nodes that share a network. An IPAM plugin touches no network, so that one host stands for all. */
export class WhereaboutsCalls {
  readonly host: Host;
  readonly ipam: object;

  /** @param ipam keys of "ipam" for every call. */
  constructor(host: Host, ipam: object) {
    this.host = host;
    this.ipam = ipam;
  }

  run(verb: string, containerId: string, calling: Calling = {}): Promise<Outcome> {
    const { node = 'node-1', on = this.host, pod, ipam = {}, args, conf = {}, prevResult } = calling;
    return runPlugin(on, 'whereabouts', verb, {
      containerId: verb === 'GC' || verb === 'STATUS' ? undefined : containerId,
      netns: '/run/netns/unused',
      config: {
        ...{ cniVersion: '1.1.0', name: 'vlan7', type: 'macvlan' },
        ...conf,
        ...(prevResult !== undefined && { prevResult }),
        ipam: { type: 'whereabouts', ...this.ipam, ...ipam },
      },
      args: [
        'IgnoreUnknown=1',
        ...(pod ? ['K8S_POD_NAMESPACE=default', `K8S_POD_NAME=${pod}`] : []),
        ...(args ? [args] : []),
      ].join(';'),
      env: { NODENAME: node },
    });
  }

  /**
   * ADD, after DEL once more when it says "try again later", as runtimes do.
   * @returns the addresses. @throws Error when it fails.
   */
  async add(containerId: string, calling: Calling = {}): Promise<string> {
    const add = () => this.run('ADD', containerId, calling);
    const { result } = succeeded(await withPatience(add, () => this.del(containerId, calling)));
    return result!.ips!.map(({ address }) => address.split('/')[0]).join(' ');
  }

  /** @throws Error when it fails. */
  async del(containerId: string, calling: Calling = {}): Promise<Outcome> {
    return succeeded(await withPatience(() => this.run('DEL', containerId, calling)));
  }
}
