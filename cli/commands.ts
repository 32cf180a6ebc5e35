/** The subcommands of `cni`. */

import type { CommandModule } from 'yargs';
import type { Suite } from '../main.ts';
import { subcommand } from './subcommand.ts';

/** Every subcommand, in the order of `cni --help`. @param suite every plugin in the executable. */
export function subcommands(suite: Suite): CommandModule[] {
  return [
    subcommand('install', 'Install the plugins, go back to what was there before, or remove them', async () =>
      (await import('./install.ts')).install(suite),
    ),
    subcommand('agent', 'Serve the plugins from one process that stays', async () =>
      (await import('./agent.ts')).agent(suite),
    ),
    subcommand('validate [paths..]', 'Check network configurations', async () =>
      (await import('./validate.ts')).validate(suite),
    ),
    subcommand('add <network> <netns>', 'Attach a namespace to a network', async (describe) =>
      (await import('./attachment.ts')).add(describe),
    ),
    subcommand('check <network> <netns>', 'Check that an attachment is as ADD left it', async (describe) =>
      (await import('./attachment.ts')).check(describe),
    ),
    subcommand('del <network> <netns>', 'Detach a namespace from a network', async (describe) =>
      (await import('./attachment.ts')).del(describe),
    ),
    subcommand('status <network> [netns]', 'Ask whether a network can take attachments', async (describe) =>
      (await import('./attachment.ts')).status(describe),
    ),
    subcommand('attach <pod> <network>', 'Attach a running pod to another network', async (describe) =>
      (await import('./attach.ts')).attach(describe),
    ),
    subcommand('detach <pod> <network>', 'Detach a running pod from a network', async (describe) =>
      (await import('./attach.ts')).detach(describe),
    ),
    subcommand('gc [network] [netns]', 'Remove what no longer belongs to a container', async () =>
      (await import('./gc.ts')).gc(suite),
    ),
    subcommand('repair [names..]', 'Restore rules, routes and ports of running containers', async () =>
      (await import('./repair.ts')).repair(suite),
    ),
    subcommand(
      'list',
      'List the attachments of this host, and check them',
      async () => (await import('./list.ts')).list,
    ),
    subcommand('network', 'List, inspect and create the networks of this host', async () =>
      (await import('./network.ts')).network(suite),
    ),
    subcommand('draw', "Draw this host's container networks", async () => (await import('./draw.ts')).draw),
    subcommand('doctor', 'Find out what is wrong with the networks of this host', async () =>
      (await import('./doctor.ts')).doctor(suite),
    ),
    subcommand('bugreport', 'Collect what is needed to look into a problem', async () =>
      (await import('./bugreport.ts')).bugreport(suite),
    ),
    subcommand(
      'probe <target>',
      'Try what pods reach, with packets from inside them',
      async () => (await import('./probe.ts')).probe,
    ),
    subcommand('probe-helper', false, async () => (await import('./probe/helper.ts')).probeHelper),
    subcommand('explain <configuration>', 'Tell what a network does to a pod, without doing it', async () =>
      (await import('./explain.ts')).explain(suite),
    ),
    subcommand(
      'completion [shell]',
      'Print what bash, zsh or fish needs to complete this command',
      async () => (await import('./completion.ts')).completion,
    ),
  ];
}
