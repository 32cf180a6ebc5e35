import test from 'ava';
import { serviceRecords } from '../../../../plugins/dnsname/names.ts';

const named = {
  ...{ containerId: 'c1', ifname: 'eth0', addresses: [], name: 'web', namespace: '', hostname: '' },
  ...{ subdomain: '', aliases: [] },
};

test('a port has the name that services(5) gives it, by its protocol', (t) => {
  const servicesOf = (containerPort: number, protocol: string) =>
    serviceRecords({ ...named, ports: [{ containerPort, protocol }] }, 'd').map(({ service }) => service);
  t.deepEqual(servicesOf(53, 'udp'), ['_53._udp.web.d', '_domain._udp.web.d']);
  t.deepEqual(servicesOf(53, 'none'), ['_53._none.web.d']);
  // Whatever a pod says its protocol is, it is no pattern.
  for (const protocol of ['(', 'ud.', '(u+)+d$']) t.deepEqual(servicesOf(53, protocol), []);
});
