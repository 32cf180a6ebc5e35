/** tap: an interface whose frames a program in the sandbox reads and writes, as virtual machines do. */

import { writeFileSync } from 'node:fs';
import { interfacePlugin, requestedMac } from '../lib/cni/interface-plugin.ts';
import type { Call } from '../lib/cni/plugin.ts';
import type { Sandbox } from '../lib/cni/sandbox.ts';
import { boolean, type Infer, integer, object, string } from '../lib/cni/schema.ts';
import { ProgramMissingError, runProgram } from '../lib/kernel/child.ts';
import { getLink, requireLink, setLink } from '../lib/kernel/link.ts';
import { createTap } from '../lib/kernel/tap.ts';

const id = (description: string) => integer({ max: 0xffffffff, description });

const config = object({
  multiQueue: boolean({ description: 'Let several threads read and write at once.' }),
  mtu: integer({ max: 65535, description: 'MTU in bytes; 0 leaves it to the kernel.' }),
  mac: string({ description: 'MAC address; random by default.' }),
  owner: id('User ID that may open the interface, besides root.'),
  group: id('Group ID that may open the interface.'),
  selinuxContext: string({ description: 'SELinux context that the interface is made in.' }),
  bridge: string({ description: 'Bridge within the sandbox that it becomes a port of.' }),
  runtimeConfig: object({ mac: string() }),
});

type TapCall = Call<Infer<typeof config>>;

export const plugin = interfacePlugin<Infer<typeof config>>({
  name: 'tap',
  summary: 'Gives a sandbox an interface whose frames a program reads and writes.',
  kind: 'tun',
  config,

  async create(call, sandbox) {
    const mac = requestedMac(call);
    const { mtu = 0, bridge } = call.config;
    const master = bridge ? bridgeIndex(sandbox, bridge) : undefined;
    if (call.config.selinuxContext) await createByCommand(call, sandbox);
    else sandbox.netns.run(() => create(call));
    const link = requireLink(sandbox.socket, call.ifname);
    sandbox.socket.execute(
      setLink(link.index, { mtu, ...(mac && { mac }), ...(master !== undefined && { master }) }, call.ifname),
    );
  },

  check(call, link, sandbox) {
    const { bridge, mtu } = call.config;
    if (bridge && link.master !== bridgeIndex(sandbox, bridge))
      throw new Error(
        `Interface "${link.name}" is no port of bridge "${bridge}". Delete the container and add it again`,
      );
    if (mtu && link.mtu !== mtu)
      throw new Error(`Interface "${link.name}" has MTU ${link.mtu} where ${mtu} is wanted`);
  },
});

function create({ ifname, config: { multiQueue = false, owner, group } }: TapCall): void {
  // The reference plugin has the virtio header only where it makes the interface by itself, with both IDs.
  createTap({
    name: ifname,
    multiQueue,
    owner,
    group,
    vnetHeader: owner !== undefined && group !== undefined,
  });
}

/** The kernel labels an interface like the process that makes it, and only a new program can have another label. */
async function createByCommand({ ifname, config }: TapCall, { netns }: Sandbox): Promise<void> {
  const { multiQueue, owner, group, selinuxContext = '' } = config;
  try {
    writeFileSync('/proc/thread-self/attr/exec', selinuxContext);
  } catch (error) {
    throw new Error(
      `The kernel does not take SELinux context "${selinuxContext}". Correct "selinuxContext", or take it out where SELinux is off`,
      {
        cause: error,
      },
    );
  }
  const words = ['tuntap', 'add', 'mode', 'tap', 'name', ifname];
  if (multiQueue) words.push('multi_queue');
  if (owner !== undefined) words.push('user', String(owner));
  if (group !== undefined) words.push('group', String(group));
  const { status, stderr } = await netns
    .run(() => runProgram('ip', words))
    .catch((error: Error) => {
      if (!(error instanceof ProgramMissingError)) throw error;
      throw new Error('"selinuxContext" needs the program "ip". Install the package "iproute2"');
    });
  if (status !== 0) throw new Error(`Cannot make TAP interface "${ifname}": ${stderr.trim()}`);
}

function bridgeIndex({ socket, netns }: Sandbox, name: string): number {
  const link = getLink(socket, name);
  if (link?.kind === 'bridge') return link.index;
  throw new Error(
    `Sandbox "${netns.path}" has no bridge "${name}". Make it with a plugin before this one, or correct "bridge"`,
  );
}
