import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;

import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hdfs.MiniDFSCluster;
import org.apache.hadoop.yarn.conf.YarnConfiguration;
import org.apache.hadoop.yarn.server.MiniYARNCluster;

/**
 * Hadoop's own HDFS and YARN (a resource manager, two node managers) in one process: MiniClusters FOLDER.
 *
 * Says "ready" when FOLDER/conf is what HADOOP_CONF_DIR is to name; ends with its standard input.
 */
public class MiniClusters {
    public static void main(String[] given) {
        try {
            serve(Path.of(given[0]));
            System.exit(0);
        } catch (Throwable failure) {
            failure.printStackTrace();
            System.exit(1); // there are threads that would keep the process
        }
    }

    private static void serve(Path folder) throws Exception {
        Configuration conf = new YarnConfiguration();
        conf.set("dfs.replication", "1");
        MiniDFSCluster hdfs =
            new MiniDFSCluster.Builder(conf, folder.resolve("hdfs").toFile()).build();
        hdfs.waitActive();
        conf.set("yarn.scheduler.capacity.root.queues", "default");
        conf.set("yarn.scheduler.capacity.root.default.capacity", "100");
        conf.set("yarn.scheduler.capacity.maximum-am-resource-percent", "1");
        conf.set("yarn.scheduler.minimum-allocation-mb", "256");
        // A node whose disk is nine tenths full would be given nothing.
        conf.set("yarn.nodemanager.disk-health-checker.enable", "false");
        MiniYARNCluster yarn = new MiniYARNCluster("ember", 2, 1, 1);
        yarn.init(conf);
        yarn.start();
        Configuration told = new Configuration(false);
        for (Map.Entry<String, String> each : yarn.getConfig()) {
            if (each.getKey().matches("fs.defaultFS|dfs.replication|(dfs|yarn.resource).*address")) {
                told.set(each.getKey(), each.getValue());
            }
        }
        Path to = Files.createDirectories(folder.resolve("conf"));
        for (String name : new String[] {"core-site.xml", "hdfs-site.xml", "yarn-site.xml"}) {
            try (OutputStream out = Files.newOutputStream(to.resolve(name))) {
                told.writeXml(out);
            }
        }
        System.out.println("ready");
        while (System.in.read() >= 0) {
        }
        yarn.stop();
        hdfs.shutdown();
    }
}
