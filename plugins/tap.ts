/** tap: an interface whose frames a program in the sandbox reads and writes, as virtual machines do. */

import { writeFileSync } from 'node:fs';
import type { Call } from '../lib/cni/call.ts';
import { attachedLink } from '../lib/cni/create-interface.ts';
import { defineMainPlugin } from '../lib/cni/main-plugin.ts';
import { requestedMac } from '../lib/cni/requested-mac.ts';
import { boolean, type InferShape, integer, object, string } from '../lib/cni/schema.ts';
import { deleteLink, getLink, requireLink, setLink } from '../lib/kernel/link.ts';
import { ProgramMissingError } from '../lib/kernel/programs.ts';
import type { Sandbox } from '../lib/kernel/sandbox.ts';
import { createTap } from '../lib/kernel/tap.ts';

const id = (description: string) => integer({ max: 0xffffffff, description });

const config = {
  multiQueue: boolean({ description: 'Let several threads read and write at once.' }),
  mtu: integer({ max: 65535, description: 'MTU in bytes; 0 leaves it to the kernel.' }),
  mac: string({ description: 'MAC address; random by default.' }),
  owner: id('User ID that may open the interface, besides root.'),
  group: id('Group ID that may open the interface.'),
  selinuxContext: string({ description: 'SELinux context that the interface is created in.' }),
  bridge: string({ description: 'Bridge within the sandbox that it becomes a port of.' }),
  runtimeConfig: object({ mac: string() }),
};

type TapCall = Call<InferShape<typeof config>>;

export const plugin = defineMainPlugin({
  name: 'tap',
  summary: 'Gives a sandbox an interface whose frames a program reads and writes.',
  kind: 'tun',
  config,

  explain: ({ bridge }) => [
    'Creates a TAP interface',
    bridge ? `Makes it a port of bridge "${bridge}" in the container` : '',
  ],

  async create(call) {
    const { mtu = 0, bridge, runtimeConfig, mac: configured, selinuxContext } = call.config;
    const { sandbox, ifname } = call;
    const mac = requestedMac(runtimeConfig?.mac, call.args(['MAC']).MAC, configured);
    const master = bridge ? bridgeIndex(sandbox, bridge) : undefined;
    if (selinuxContext) await createByCommand(call, selinuxContext);
    else sandbox.netns.run(() => create(call));
    let index = 0;
    call.undo(`delete interface "${ifname}"`, () => void sandbox.socket.execute(deleteLink(index, ifname)));
    ({ index } = requireLink(sandbox.socket, ifname));
    sandbox.socket.execute(
      setLink(index, { mtu, ...(mac && { mac }), ...(master !== undefined && { master }) }, ifname),
    );
    return attachedLink(call, requireLink(sandbox.socket, index));
  },

  check({ config: { bridge }, sandbox }, { link }) {
    if (bridge && link.master !== bridgeIndex(sandbox, bridge))
      throw new Error(
        `Interface "${link.name}" is not a port of bridge "${bridge}". Delete the container and add it again`,
      );
  },
});

function create({ ifname, config: { multiQueue = false, owner, group } }: TapCall): void {
  // The reference plugin sets the virtio header only where it creates the interface itself, with both IDs.
  const vnetHeader = owner !== undefined && group !== undefined;
  createTap({ name: ifname, multiQueue, owner, group, vnetHeader });
}

/**
 * The kernel gives an interface the SELinux label of the process that creates it, and a process gets another
 * label only by executing a program.
 */
async function createByCommand(call: TapCall, selinuxContext: string): Promise<void> {
  const { multiQueue, owner, group } = call.config;
  try {
    writeFileSync('/proc/thread-self/attr/exec', selinuxContext);
  } catch (error) {
    throw new Error(
      `The kernel does not take SELinux context "${selinuxContext}". Correct "selinuxContext", or take it out where SELinux is off`,
      { cause: error },
    );
  }
  const words = ['tuntap', 'add', 'mode', 'tap', 'name', call.ifname];
  if (multiQueue) words.push('multi_queue');
  if (owner !== undefined) words.push('user', String(owner));
  if (group !== undefined) words.push('group', String(group));
  const start = async () => {
    try {
      return call.sandbox.netns.run(() => call.programs.run('ip', words));
    } finally {
      // Whether or not the child has started, the next one must not get its context.
      writeFileSync('/proc/thread-self/attr/exec', '\n');
    }
  };
  const { status, stderr } = await start().catch((error: Error) => {
    if (!(error instanceof ProgramMissingError)) throw error;
    throw new Error('"selinuxContext" needs the program "ip". Install the package "iproute2"');
  });
  if (status !== 0) throw new Error(`Cannot create TAP interface "${call.ifname}": ${stderr.trim()}`);
}

function bridgeIndex({ socket, netns }: Sandbox, name: string): number {
  const link = getLink(socket, name);
  if (link?.kind === 'bridge') return link.index;
  throw new Error(
    `Sandbox "${netns.path}" has no bridge "${name}". Create it with a plugin before this one, or correct "bridge"`,
  );
}
