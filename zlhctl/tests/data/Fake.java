import java.io.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.jar.*;
import java.util.zip.*;

/** Does what launchers and installers of servers do, without the network. */
public class Fake {
    public static void main(String[] args) throws Exception {
        String mode = new String(Fake.class.getResourceAsStream("/mode").readAllBytes(), StandardCharsets.UTF_8);
        for (String name : System.getenv().keySet()) {
            if (!java.util.List.of("PATH", "HOME", "LANG").contains(name)) {
                throw new IllegalStateException("the environment has " + name);
            }
        }
        switch (mode) {
            case "fail":
                System.out.println("first words");
                System.err.println("last words");
                System.exit(3);
            case "hang":
                System.out.println("hanging");
                Thread.sleep(600_000);
            case "nothing":
                write("logs/latest.log", "x");
                return;
        }
        for (String left : new String[] {"logs/latest.log", "installer.log", "world/level.dat", "config/x", "run.sh"}) {
            write(left, "" + System.nanoTime());
        }
        write("libraries/a/a.jar", "a library");
        if (Boolean.getBoolean("paperclip.patchonly")) {
            write("eula.txt", "eula=false");
            write("versions/1.21.7/paper.jar", "patched");
            write("cache/mojang.jar", "its own");
        } else if (args[0].equals("nogui")) {
            if (!Files.readString(Path.of("eula.txt")).equals("eula=false\n")) {
                throw new IllegalStateException("it would start");
            }
            String server = ".fabric/server/";
            write(server + "1.21.7-server.jar", "its own");
            write(server + "libraries/a.jar", "a loader");
            write(".fabric/remappedJars/x.jar", "" + System.nanoTime());
            write("versions/1.21.7/server.jar", "unpacked");
            Manifest manifest = new Manifest();
            manifest.getMainAttributes().put(Attributes.Name.MANIFEST_VERSION, "1.0");
            manifest.getMainAttributes().put(Attributes.Name.MAIN_CLASS, "net.fabricmc.loader.impl.launch.server.FabricServerLauncher");
            manifest.getMainAttributes().put(Attributes.Name.CLASS_PATH, "libraries/a.jar");
            Path launch = Path.of(server + "fabric-loader-server-0.16.14-minecraft-1.21.7.jar");
            try (JarOutputStream out = new JarOutputStream(Files.newOutputStream(launch), manifest)) {
                ZipEntry entry = new ZipEntry("fabric-server-launch.properties");
                // Another time in every run.
                entry.setTime(System.nanoTime());
                out.putNextEntry(entry);
                out.write("launch.mainClass=x\n".getBytes(StandardCharsets.UTF_8));
            }
        } else if (args[0].equals("--installServer")) {
            installer(mode);
        } else {
            throw new IllegalStateException("asked for " + String.join(" ", args));
        }
    }

    static void installer(String mode) throws Exception {
        write("user_jvm_args.txt", "# -Xmx4G\n");
        String forge = "libraries/net/minecraftforge/forge/1.21.7-57.0.2/unix_args.txt";
        if (mode.equals("no-args")) {
            return;
        }
        if (mode.equals("missing")) {
            write(forge, "-p libraries/gone.jar");
            return;
        }
        if (mode.equals("link")) {
            write(forge, "-Da=b");
            Files.createSymbolicLink(Path.of("libraries/out"), Path.of("/etc/passwd"));
            return;
        }
        if (mode.equals("neoforge")) {
            write("libraries/net/neoforged/neoforge/21.1.193/unix_args.txt",
                "-DlibraryDirectory=libraries\n-p libraries/a/a.jar\n--add-opens java.base/java.util.jar=x\nx.BootstrapLauncher\n");
            return;
        }
        write(forge, "-Djava.net.preferIPv6Addresses=system -jar forge-1.21.7-57.0.2-shim.jar\n");
        try (ZipOutputStream out = new ZipOutputStream(Files.newOutputStream(Path.of("forge-1.21.7-57.0.2-shim.jar")))) {
            String[][] content = {
                {"bootstrap-shim.list", "0\ta:a:1\ta/a.jar\n"},
                {"bootstrap-shim.properties", "Arguments=--launchTarget forge_server\nMain-Class=net.minecraftforge.bootstrap.ForgeBootstrap\n"},
            };
            for (String[] one : content) {
                ZipEntry entry = new ZipEntry(one[0]);
                entry.setTime(0);
                out.putNextEntry(entry);
                out.write(one[1].getBytes(StandardCharsets.UTF_8));
            }
        }
    }

    static void write(String path, String text) throws IOException {
        Path place = Path.of(path);
        if (place.getParent() != null) {
            Files.createDirectories(place.getParent());
        }
        Files.writeString(place, text);
    }
}
