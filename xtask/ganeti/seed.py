# Reads a guest's seed with Debian's own cloud-init: seed.py TREE NAME MAC. TREE holds the guest's etc/cloud
# and var/lib/cloud. Prints the user data and fails where cloud-init would not take what is there.
import os
import subprocess
import sys

from cloudinit import helpers, util
from cloudinit.net import network_state
from cloudinit.net.netplan import Renderer
from cloudinit.sources import DataSourceNoCloud

tree, name, mac = sys.argv[1:]


def want(what, found, wanted):
    if found != wanted:
        sys.exit(f"cloud-init reads {what} {found!r}, not {wanted!r}")


# What decides at boot whether cloud-init runs at all, and with which source.
places = {key: tree + "/none" for key in ("PATH_PROC_CMDLINE", "PATH_SYS_CLASS_DMI_ID", "PATH_DEV_DISK")}
identify = subprocess.run(
    ["/usr/lib/cloud-init/ds-identify", "--force"],
    env={"PATH": os.environ["PATH"], "PATH_ROOT": tree, "DI_LOG": "stderr", **places},
    stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
)
want("of ds-identify the status", (identify.returncode, identify.stderr), (0, identify.stderr))
with open(tree + "/run/cloud-init/cloud.cfg") as chosen:
    want("the sources", util.load_yaml(chosen.read()), {"datasource_list": ["NoCloud", "None"]})

config = util.read_conf_with_confd(tree + "/etc/cloud/cloud.cfg")
want("the sources", config["datasource_list"], ["NoCloud", "None"])
paths = helpers.Paths({"cloud_dir": tree + "/var/lib/cloud", "run_dir": tree + "/run/cloud-init"})
source = DataSourceNoCloud.DataSourceNoCloud(config, None, paths)
want("that there is a seed", source._get_data(), True)
want("the seed of", source.seed, tree + "/var/lib/cloud/seed/nocloud")
want("the name", source.get_hostname(fqdn=True)[0], name)
if not source.get_instance_id().startswith("iid-"):
    sys.exit(f"cloud-init reads the instance's id {source.get_instance_id()!r}")

# From the text to what netplan would be given.
state = network_state.parse_net_config_data(source.network_config)
want("interfaces", [i["mac_address"] for i in state.iter_interfaces()], [mac])
want("of DHCP", [s["type"] for i in state.iter_interfaces() for s in i["subnets"]], ["dhcp4"])
text = Renderer()._render_content(state)
if mac not in text or "dhcp4: true" not in text:
    sys.exit(f"cloud-init makes of the network:\n{text}")
print(source.get_userdata_raw() if isinstance(source.get_userdata_raw(), str) else source.get_userdata_raw().decode())
